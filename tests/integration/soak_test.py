"""A daemon under mixed traffic for a while keeps its memory, its descriptors, its threads and its blocks.

ACUITY_SOAK_S: how long, in seconds [20]; scripts/soak runs it for longer.
"""

import os
import pathlib
import random
import threading
import time
import unittest

import grpc

from harness import Daemon, acuity_pb2_grpc, long_text, pb

SECONDS = float(os.environ.get("ACUITY_SOAK_S", "20"))
# Allocators and gRPC's own pools fill up first; only what grows after that is a leak.
WARM_UP_SECONDS = SECONDS / 4
WARM_UP_REQUESTS = 150
MAX_GROWTH_BYTES = 16 << 20
CLIENTS = 6
TEXT = long_text(200)


def counts(daemon):
    """(descriptors, threads of ours and of the metrics listener; gRPC starts and ends its own as its load asks for)."""
    folder = pathlib.Path(f"/proc/{daemon.process.pid}")
    names = [(task / "comm").read_text() for task in (folder / "task").iterdir()]
    return len(list((folder / "fd").iterdir())), sum(name.startswith(("acuityd", "civetweb")) for name in names)


class Client(threading.Thread):
    """Asks for one thing after another, each time on a connection of its own, until told to stop."""

    def __init__(self, daemon, seed):
        super().__init__()
        self.daemon_under_test, self.random = daemon, random.Random(seed)
        self.stopped, self.done, self.failures = threading.Event(), 0, []

    def run(self):
        while not self.stopped.is_set():
            channel = grpc.insecure_channel(self.daemon_under_test.address,
                                            options=[("grpc.use_local_subchannel_pool", 1)])
            try:
                kind = self.random.choice([self.generate, self.cancel, self.deadline, self.score, self.bad])
                kind(acuity_pb2_grpc.AcuityStub(channel))
                self.done += 1
            except Exception as error:  # noqa: BLE001: whatever it was, the test reports it
                self.failures.append(repr(error))
            finally:
                channel.close()

    def request(self, **sampling):
        begin = self.random.randrange(200)
        return self.daemon_under_test.request(
            TEXT[begin:begin + self.random.randrange(1, 300)], ignore_eos=True,
            attention=self.random.choice([pb.ATTENTION_DETAIL_OFF, pb.ATTENTION_DETAIL_HEADS]), **sampling)

    def generate(self, stub):
        count, n = self.random.randrange(1, 12), self.random.choice([1, 1, 3])
        got = 0
        for message in stub.Generate(self.request(max_tokens=count, n=n, logprobs=2)):
            got += sum(len(delta.token_ids) for delta in message.deltas)
        assert got == count * n, (got, count, n)

    def cancel(self, stub):
        call = stub.Generate(self.request(max_tokens=100))
        for _ in range(self.random.randrange(4)):
            next(call)
        call.cancel()

    def deadline(self, stub):
        try:
            list(stub.Generate(self.request(max_tokens=200), timeout=self.random.uniform(0.001, 0.3)))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

    def score(self, stub):
        request = self.request()
        scored = stub.Score(pb.ScoreRequest(model=request.model, prompt=request.prompt, attention=request.attention))
        assert len(scored.logprobs) == len(scored.token_ids) > 0

    def bad(self, stub):
        try:
            list(stub.Generate(self.request(temperature=-1, max_tokens=3)))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            return
        raise AssertionError("a temperature of -1 was taken")


class SoakTest(unittest.TestCase):
    def traffic(self, daemon, seconds, seed):
        clients = [Client(daemon, seed + i) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        end = time.time() + seconds
        while time.time() < end:
            daemon.metrics_text()
            time.sleep(min(1.0, max(0.0, end - time.time())))
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join(120)
            self.assertFalse(client.is_alive())
            self.assertEqual(client.failures, [])
        self.assertEqual(daemon.wait_idle(), 0)
        return sum(client.done for client in clients)

    def quiet(self, daemon):
        """(descriptors, threads, resident bytes) once the first two have not changed for a second."""
        last = counts(daemon)
        for _ in range(30):
            time.sleep(1)
            now = counts(daemon)
            if now == last:
                return *now, daemon.rss_bytes()
            last = now
        self.fail(f"descriptors and threads never settle: {last}")

    def test_nothing_grows(self):
        # A pool that is soon full, because its pages become resident one after the other.
        with Daemon("--max-context", "512", "--kv-memory", "16MiB") as daemon:
            daemon.status()
            done, rounds = self.traffic(daemon, WARM_UP_SECONDS, 0), 1
            while done < WARM_UP_REQUESTS:
                done, rounds = done + self.traffic(daemon, 5, 100 * rounds), rounds + 1
            before = self.quiet(daemon)
            done, end = 0, time.time() + SECONDS
            while time.time() < end:
                done, rounds = done + self.traffic(daemon, min(60.0, end - time.time()), 100 * rounds), rounds + 1
                now = self.quiet(daemon)
                print(f"after {done:6d} requests: {now[0]} descriptors, {now[1]} threads, "
                      f"{(now[2] - before[2]) / 2**20:+.1f} MiB", flush=True)
            self.assertGreater(done, 10)
            self.assertEqual(now[:2], before[:2], "descriptors and threads")
            self.assertLess(now[2] - before[2], MAX_GROWTH_BYTES, "resident memory")


if __name__ == "__main__":
    unittest.main(verbosity=2)
