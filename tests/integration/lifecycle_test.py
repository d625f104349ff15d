"""Start, health, reflection, several models, the drain."""

import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

from harness import (BIN, MODEL, START_SECONDS, Daemon, acuity, acuity_pb2_grpc, long_text, pb,
                     temporary_file)

SMALL = ("--max-context", "512", "--kv-memory", "64MiB")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class LifecycleTest(unittest.TestCase):
    def test_health_reflection_and_models(self):
        with Daemon(*SMALL) as daemon:
            for service in ("", "acuity.v1.Acuity", "inference.GRPCInferenceService"):
                check = daemon.health.Check(health_pb2.HealthCheckRequest(service=service))
                self.assertEqual(check.status, SERVING)
            with self.assertRaises(grpc.RpcError) as caught:
                daemon.health.Check(health_pb2.HealthCheckRequest(service="nope"))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            services = ProtoReflectionDescriptorDatabase(daemon.channel).get_services()
            self.assertIn("acuity.v1.Acuity", services)
            self.assertIn("inference.GRPCInferenceService", services)
            model = daemon.stub.GetModel(pb.GetModelRequest(model="smol"))
            self.assertEqual((model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim),
                             (30, 9, 3, 64))
            self.assertEqual(model.max_context, 512)
            self.assertTrue(model.chat)

    def test_reflection_can_be_turned_off(self):
        with Daemon(*SMALL, "--no-reflection") as daemon:
            with self.assertRaises(grpc.RpcError) as caught:
                ProtoReflectionDescriptorDatabase(daemon.channel).get_services()
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
            self.assertEqual(len(daemon.generate("x", max_tokens=1, ignore_eos=True).token_ids), 1)

    def test_a_client_that_does_not_read_is_cancelled_and_the_others_go_on(self):
        with Daemon("--max-context", "2048", "--kv-memory", "256MiB") as daemon:
            # Nobody ever asks the call for a message, and the connection, its own, does not widen its window: 4,000
            # tokens with 20 alternatives each are 1.4 MB, of which the client's library takes 64 KiB.
            with grpc.insecure_channel(daemon.address, options=[("grpc.http2.bdp_probe", 0)]) as channel:
                deaf = acuity_pb2_grpc.AcuityStub(channel).Generate(
                    daemon.request("x", n=4, max_tokens=1000, ignore_eos=True, logprobs=20))
                begin, ended = time.time(), None
                self.assertIn("Paris", daemon.generate("The capital of France is", temperature=0, max_tokens=8).text)
                while ended is None and time.time() < begin + 120:
                    self.assertEqual(len(daemon.generate("y", max_tokens=8, ignore_eos=True).token_ids), 8)
                    ended = next((e for e in daemon.log if e.get("event") == "request" and e["status"] != "OK"), None)
                self.assertIsNotNone(ended, "nobody cancelled the request")
                self.assertEqual(ended["status"], "CANCELLED")
                self.assertIn("did not keep up", ended["error"])
                self.assertLess(ended["completion_tokens"], 4000)
                self.assertEqual(daemon.wait_idle(), 0)
                with self.assertRaises(grpc.RpcError) as caught:
                    list(deaf)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)
                print(f"cancelled after {ended['completion_tokens']} tokens, {time.time() - begin:.1f} s")

    def test_a_client_that_does_not_read_is_cancelled_though_all_is_said(self):
        with Daemon("--max-context", "2048", "--kv-memory", "256MiB") as daemon:
            ask = lambda tokens: daemon.request("x", n=8, max_tokens=tokens, ignore_eos=True, logprobs=20, seed=1)
            token = sum(m.ByteSize() for m in daemon.stub.Generate(ask(8))) / 64
            # The client's library takes 64 KiB; half of the 64 KiB that may be gathered besides stay unsent.
            with grpc.insecure_channel(daemon.address, options=[("grpc.http2.bdp_probe", 0)]) as channel:
                deaf = acuity_pb2_grpc.AcuityStub(channel).Generate(ask(int(96 * 1024 / token / 8)))
                requests = lambda: [e for e in daemon.log if e.get("event") == "request"]
                while len(requests()) < 2:
                    time.sleep(0.05)
                self.assertEqual((requests()[1]["status"], requests()[1]["error"]), ("OK", ""))
                time.sleep(13)
                with self.assertRaises(grpc.RpcError) as caught:
                    list(deaf)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)

    def test_two_models_with_their_own_policies_on_a_unix_socket(self):
        with tempfile.TemporaryDirectory() as folder:
            address = f"unix:{folder}/acuity.sock"
            with Daemon(*SMALL, "--model", f"sharp={MODEL}", "--attention", "sharp=ssmax:auto",
                        listen=address) as daemon:
                models = daemon.stub.ListModels(pb.ListModelsRequest()).models
                self.assertEqual([m.name for m in models], ["sharp", "smol"])
                self.assertTrue(models[0].attention_policy.startswith("ssmax:"))
                self.assertEqual(models[1].attention_policy, "softmax")
                self.assertEqual(acuity("health", server=address).returncode, 0)
                logprobs = [daemon.stub.Score(pb.ScoreRequest(
                    model=m.name, prompt=pb.Prompt(text=long_text(200).encode()))).logprobs
                    for m in models]
                self.assertNotAlmostEqual(sum(logprobs[0][1:]), sum(logprobs[1][1:]), places=1)
            # A killed daemon leaves its socket; the next one starts all the same.
            with Daemon(*SMALL, listen=address) as daemon:
                daemon.process.kill()
                daemon.process.wait()
                self.assertTrue(os.path.exists(address[5:]))
            with Daemon(*SMALL, listen=address) as daemon:
                self.assertEqual(acuity("health", server=address).returncode, 0)

    def test_a_configuration_file_and_a_sidecar(self):
        sidecar = temporary_file('{"attention": {"policy": "ssmax", "s": 0.12}}', ".json")
        config = temporary_file(f'attention = ["smol=file:{sidecar}"]\nmax-context = 256\n', ".toml")
        with Daemon("--kv-memory", "64MiB", "--config", config) as daemon:
            model = daemon.stub.GetModel(pb.GetModelRequest(model="smol"))
            self.assertEqual(model.max_context, 256)
            self.assertIn("ssmax", model.attention_policy)

    def test_a_log_on_a_full_disk_stops_nothing(self):
        with tempfile.TemporaryDirectory() as folder, open("/dev/full", "w") as full:
            address = f"unix:{folder}/acuity.sock"
            daemon = subprocess.Popen([BIN / "acuityd", "--model", f"smol={MODEL}", "--listen", address,
                                       "--metrics-listen", "", *SMALL], stderr=full)
            try:
                end = time.time() + START_SECONDS
                while acuity("health", server=address).returncode != 0 and time.time() < end:
                    self.assertIsNone(daemon.poll())
                    time.sleep(0.1)
                run = acuity("generate", "--prompt", "The capital of France is", "--max-tokens", "4", "--temperature", "0",
                             server=address)
                self.assertIn("Paris", run.stdout, run.stderr)
                daemon.send_signal(signal.SIGTERM)
                self.assertEqual(daemon.wait(60), 0)
            finally:
                daemon.kill()
                daemon.wait()

    def test_sigterm_loses_no_request(self):
        streams = 16
        with Daemon(*SMALL) as daemon:
            watch = daemon.health.Watch(health_pb2.HealthCheckRequest())
            self.assertEqual(next(watch).status, SERVING)
            started, results = threading.Semaphore(0), []

            def run(i):
                call = daemon.stub.Generate(daemon.request(ids=[900 + i], max_tokens=60,
                                                           ignore_eos=True, temperature=0))
                tokens = 0
                for message in call:
                    if tokens == 0:
                        started.release()
                    tokens += sum(len(d.token_ids) for d in message.deltas)
                results.append(tokens)

            threads = [threading.Thread(target=run, args=(i,)) for i in range(streams)]
            for thread in threads:
                thread.start()
            for _ in threads:
                started.acquire()
            daemon.process.send_signal(signal.SIGTERM)
            signalled = time.time()
            self.assertEqual(next(watch).status, NOT_SERVING)
            print(f"NOT_SERVING {1000 * (time.time() - signalled):.0f} ms after SIGTERM")
            with self.assertRaises(grpc.RpcError) as caught:
                while time.time() < signalled + 10:  # health turns first: what comes between is served
                    daemon.generate("x", max_tokens=1)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            for thread in threads:
                thread.join(120)
            self.assertEqual(results, [60] * streams)
            self.assertEqual(daemon.process.wait(60), 0)
            self.assertTrue(daemon.event("ended")["all_requests_finished"])

    def test_new_requests_are_taken_during_the_delay_before_the_drain(self):
        with Daemon(*SMALL, "--drain-delay", "3") as daemon:
            daemon.process.send_signal(signal.SIGTERM)
            check = lambda: daemon.health.Check(health_pb2.HealthCheckRequest()).status
            while check() != NOT_SERVING:
                time.sleep(0.01)
            self.assertEqual(len(daemon.generate("x", max_tokens=2, ignore_eos=True).token_ids), 2)
            self.assertEqual(daemon.process.wait(30), 0)
            self.assertTrue(daemon.event("ended")["all_requests_finished"])

    def test_the_drain_window_ends(self):
        with Daemon(*SMALL, "--drain-seconds", "0.5") as daemon:
            call = daemon.stub.Generate(daemon.request("x", max_tokens=500, ignore_eos=True, n=8))
            next(iter(call))
            daemon.process.send_signal(signal.SIGTERM)
            with self.assertRaises(grpc.RpcError) as caught:
                for _ in call:
                    pass
            self.assertIn(caught.exception.code(),
                          (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE))
            self.assertEqual(daemon.process.wait(30), 0)
            self.assertFalse(daemon.event("ended")["all_requests_finished"])

    def test_a_second_signal_ends_it_at_once(self):
        with Daemon(*SMALL) as daemon:
            call = daemon.stub.Generate(daemon.request("x", max_tokens=500, ignore_eos=True, n=8))
            next(iter(call))
            daemon.process.send_signal(signal.SIGTERM)
            while daemon.event("draining") is None:
                time.sleep(0.01)
            time.sleep(0.1)
            daemon.process.send_signal(signal.SIGTERM)
            self.assertNotEqual(daemon.process.wait(5), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
