"""Tokens, tenants and TLS, against real daemons."""

import hashlib
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import grpc
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)
from grpc_status import rpc_status

from certificates import Certificates, token_line
from harness import MODEL, Daemon, acuity, acuityd, health_pb2, health_pb2_grpc, pb

SMALL = ("--max-context", "512", "--kv-memory", "64MiB")


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def wait_for(what, seconds=20):
    end = time.time() + seconds
    while not what():
        if time.time() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.05)


class TokenTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.tokens = pathlib.Path(self.folder.name, "tokens")
        self.tokens.write_text("# two tenants\n" + token_line("ann", "a-secret") + token_line("bob", "b-secret"))

    def code(self, call):
        try:
            list(call())
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def test_every_method_is_closed_without_a_known_token(self):
        with Daemon(*SMALL, "--auth-tokens", str(self.tokens)) as daemon:
            methods = [("/" + service.full_name + "/" + method.name)
                       for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods]
            methods.append("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            methods += ["/inference.GRPCInferenceService/" + name for name in (
                "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
                "ModelStreamInfer", "ModelConfig", "ModelStatistics")]
            self.assertEqual(len(methods), 17)
            wrong = [[], bearer("nope"), bearer(""), [("authorization", "a-secret")],
                     [("authorization", "Basic a-secret")], bearer("a-secret") + bearer("a-secret"),
                     bearer(hashlib.sha256(b"a-secret").hexdigest())]
            for method in methods:
                call = daemon.channel.stream_stream(method, lambda b: b, lambda b: b)
                for metadata in wrong:
                    with self.subTest(method=method, metadata=metadata):
                        self.assertEqual(self.code(lambda: call(iter([b""]), metadata=metadata, timeout=20)),
                                         grpc.StatusCode.UNAUTHENTICATED)
            self.assertEqual(daemon.metric("acuity_unauthenticated_calls_total"), len(methods) * len(wrong))
            self.assertEqual(daemon.health.Check(health_pb2.HealthCheckRequest()).status, 1)
            request = daemon.request("x", max_tokens=2, ignore_eos=True)
            self.assertEqual(self.code(lambda: daemon.stub.Generate(request, metadata=bearer("a-secret"))),
                             grpc.StatusCode.OK)
            wait_for(lambda: daemon.event("request"))
            self.assertEqual(daemon.event("request")["tenant"], "ann")
            request.tenant = "bob"
            self.assertEqual(self.code(lambda: daemon.stub.Generate(request, metadata=bearer("a-secret"))),
                             grpc.StatusCode.PERMISSION_DENIED)
            self.assertNotIn("secret", str(daemon.log))
            # The command-line client, token from a file or the environment.
            file = pathlib.Path(self.folder.name, "mine")
            file.write_text("b-secret\n")
            self.assertEqual(acuity("models", server=daemon.address).returncode, 1)
            self.assertEqual(acuity("models", "--token-file", str(file), server=daemon.address).returncode, 0)
            self.assertEqual(acuity("models", server=daemon.address,
                                    env={**os.environ, "ACUITY_TOKEN": "b-secret"}).returncode, 0)

    def test_the_file_is_reloaded_and_a_broken_one_is_not(self):
        with Daemon(*SMALL, "--auth-tokens", str(self.tokens)) as daemon:
            models = lambda token: self.code(lambda: [daemon.stub.ListModels(
                pb.ListModelsRequest(), metadata=bearer(token))])
            self.tokens.write_text(token_line("cal", "c-secret"))
            wait_for(lambda: models("c-secret") == grpc.StatusCode.OK)
            self.assertEqual(models("a-secret"), grpc.StatusCode.UNAUTHENTICATED)
            for broken in ("cal 1234\n", "", "two words here too\n"):
                before = len(daemon.log)
                self.tokens.write_text(broken)
                wait_for(lambda: any(e.get("level") == "error" for e in daemon.log[before:]))
                self.assertEqual(models("c-secret"), grpc.StatusCode.OK)
            before = len(daemon.log)
            daemon.process.send_signal(signal.SIGHUP)
            wait_for(lambda: any(e.get("event") == "tokens reloaded" for e in daemon.log[before:]))

    def test_a_tenants_limits_leave_the_others_alone(self):
        with Daemon(*SMALL, "--auth-tokens", str(self.tokens), "--tenant-max-requests", "2",
                    "--tenant-max-queued-tokens", "100") as daemon:
            long = daemon.request("x", max_tokens=400, ignore_eos=True)
            held = [daemon.stub.Generate(long, metadata=bearer("a-secret")) for _ in range(2)]
            for call in held:
                next(iter(call))
            short = daemon.request("x", max_tokens=1)
            refused = daemon.stub.Generate(short, metadata=bearer("a-secret"))
            self.assertEqual(refused.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("limit is 2", refused.details())
            details = {d.type_url.rsplit(".", 1)[1]: d for d in rpc_status.from_call(refused).details}
            self.assertLessEqual({"ErrorInfo", "RetryInfo", "QuotaFailure"}, set(details))
            quota, info = error_details_pb2.QuotaFailure(), error_details_pb2.ErrorInfo()
            details["QuotaFailure"].Unpack(quota)
            details["ErrorInfo"].Unpack(info)
            self.assertEqual(quota.violations[0].subject, "tenant ann")
            self.assertEqual(info.reason, "TENANT_LIMIT")
            self.assertEqual(self.code(lambda: daemon.stub.Generate(short, metadata=bearer("b-secret"))),
                             grpc.StatusCode.OK)
            large = daemon.request(ids=[500] * 101, max_tokens=1)
            self.assertEqual(self.code(lambda: daemon.stub.Generate(large, metadata=bearer("b-secret"))),
                             grpc.StatusCode.RESOURCE_EXHAUSTED)
            for call in held:
                call.cancel()
            wait_for(lambda: self.code(lambda: daemon.stub.Generate(
                short, metadata=bearer("a-secret"))) == grpc.StatusCode.OK)


class TlsTest(Certificates, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.authority("ca")
        self.certificate("server", "ca")

    def read(self, name):
        return pathlib.Path(self.path(name)).read_bytes()

    def serving(self, address, ca="ca", client=None):
        pair = (self.read(f"{client}.key"), self.read(f"{client}.crt")) if client else (None, None)
        # A channel of its own, or gRPC would reuse the connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(self.read(f"{ca}.crt"), *pair),
                                 options=options) as channel:
            try:
                stub = health_pb2_grpc.HealthStub(channel)
                return stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
            except grpc.RpcError:
                return False

    def flags(self, *more):
        return ("--tls-cert", self.path("server.crt"), "--tls-key", self.path("server.key"), *more)

    def test_tls_and_reload(self):
        with Daemon(*SMALL, *self.flags()) as daemon:
            self.assertTrue(self.serving(daemon.address))
            self.authority("new")
            self.assertFalse(self.serving(daemon.address, ca="new"))
            run = acuity("generate", "--prompt", "x", "--max-tokens", "1", "--tls-ca", self.path("ca.crt"),
                         server=daemon.address)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(acuity("health", server=daemon.address).returncode, 1)
            # TLS 1.1 is refused, 1.2 is not.
            for version, accepted in (("-tls1_1", False), ("-tls1_2", True)):
                run = subprocess.run(["openssl", "s_client", "-connect", daemon.address, version, "-alpn", "h2",
                                      "-cipher", "DEFAULT@SECLEVEL=0"], input=b"", capture_output=True, timeout=20)
                self.assertEqual(b"Cipher is (NONE)" not in run.stdout, accepted, version)
            # A key that is not the certificate's, and then no certificate at all: the old pair serves on.
            for name, text in (("server.key", self.read("new.key")), ("server.crt", b"nonsense")):
                before = len(daemon.log)
                pathlib.Path(self.path(name)).write_bytes(text)
                wait_for(lambda: any(e.get("level") == "error" for e in daemon.log[before:]))
                self.assertTrue(self.serving(daemon.address))
            self.certificate("server", "new")
            wait_for(lambda: self.serving(daemon.address, ca="new"))
            self.assertFalse(self.serving(daemon.address))

    def test_a_client_authority_makes_client_certificates_required(self):
        self.authority("clients")
        self.certificate("client", "clients")
        self.certificate("stranger", "ca")
        with Daemon(*SMALL, *self.flags("--tls-client-ca", self.path("clients.crt"))) as daemon:
            self.assertTrue(self.serving(daemon.address, client="client"))
            self.assertFalse(self.serving(daemon.address))
            self.assertFalse(self.serving(daemon.address, client="stranger"))
            run = acuity("models", "--tls-ca", self.path("ca.crt"), "--tls-cert", self.path("client.crt"),
                         "--tls-key", self.path("client.key"), server=daemon.address)
            self.assertEqual(run.returncode, 0, run.stderr)

    def test_what_does_not_start(self):
        quiet = ["--model", f"m={MODEL}", "--listen", "127.0.0.1:0", "--metrics-listen", ""]
        self.authority("other")
        pathlib.Path(self.path("tokens")).write_text("ann abc\n")
        rows = [
            (2, "--tls-key", ["--tls-cert", self.path("server.crt")]),
            (2, "--auth-tokens", ["--tenant-max-requests", "3"]),
            (1, "/no/such", ["--tls-cert", "/no/such", "--tls-key", self.path("server.key")]),
            (1, "not the key", ["--tls-cert", self.path("server.crt"), "--tls-key", self.path("other.key")]),
            (1, "--tls-client-ca", [*self.flags("--tls-client-ca", self.path("server.key"))]),
            (1, "tokens:1", ["--auth-tokens", self.path("tokens")]),
        ]
        for code, part, flags in rows:
            with self.subTest(part=part):
                run = acuityd(*quiet, *flags)
                self.assertEqual(run.returncode, code, run.stderr)
                self.assertIn(part, run.stderr)

    def test_a_listener_open_to_the_network_says_so(self):
        with Daemon(*SMALL, listen="0.0.0.0:0") as daemon:
            self.assertEqual(len([e for e in daemon.log if e.get("event") == "exposed listener"]), 1)
        with Daemon(*SMALL) as daemon:
            self.assertIsNone(daemon.event("exposed listener"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
