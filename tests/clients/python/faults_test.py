"""The Python client against a server that misbehaves on purpose: retries, TLS, client certificates, tokens. The server is
grpc's own, in this process."""

import asyncio
import contextlib
import pathlib
import subprocess
import tempfile
import time
import unittest
from concurrent import futures

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import acuity
from acuity.v1 import acuity_pb2 as pb
from acuity.v1 import acuity_pb2_grpc

QUICK = acuity.Retry(first_delay=0.01)


def refusal(code, retry_seconds=None, message="queue: full"):
    """(code, message, trailing metadata) of a rich error."""
    status = status_pb2.Status(code=code.value[0], message=message)
    details = [error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="acuity")]
    if retry_seconds is not None:
        delay = duration_pb2.Duration(seconds=int(retry_seconds), nanos=int(retry_seconds % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return code, message, (("grpc-status-details-bin", status.SerializeToString()),)


class Server(acuity_pb2_grpc.AcuityServicer):
    """Refuses the first calls with `refusals`, then answers; with `tokens_before`, refuses after so many tokens."""

    def __init__(self, refusals=(), tokens_before=0):
        self.refusals, self.tokens_before = list(refusals), tokens_before
        self.calls, self.metadata, self.deadlines = 0, [], []

    def _refuse(self, context):
        self.calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        return self.refusals.pop(0) if self.refusals else None

    def Generate(self, request, context):
        refused = self._refuse(context)
        if refused:
            for i in range(self.tokens_before):
                yield pb.GenerateResponse(deltas=[pb.Delta(text=f"{i} ", token_ids=[i])])
            code, message, trailing = refused
            context.set_trailing_metadata(trailing)
            context.abort(code, message)
        yield pb.GenerateResponse(deltas=[pb.Delta(text="yes", token_ids=[1], finish_reason=pb.FINISH_REASON_STOP)])
        yield pb.GenerateResponse(result=pb.GenerateResult(request_id=request.request_id))

    def ListModels(self, request, context):
        refused = self._refuse(context)
        if refused:
            code, message, trailing = refused
            context.set_trailing_metadata(trailing)
            context.abort(code, message)
        return pb.ListModelsResponse(models=[pb.Model(name="m")])


@contextlib.contextmanager
def serve(servicer, credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(4))
    acuity_pb2_grpc.add_AcuityServicer_to_server(servicer, server)
    port = (server.add_insecure_port("localhost:0") if credentials is None
            else server.add_secure_port("localhost:0", credentials))
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


FULL = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.05)


def generate(address, **kwargs):
    with acuity.Client(address, model="m", **kwargs) as client:
        return client.generate("x")


def generate_async(address, **kwargs):
    async def main():
        async with acuity.AsyncClient(address, model="m", **kwargs) as client:
            return await client.generate("x")

    return asyncio.run(main())


def models(address, **kwargs):
    with acuity.Client(address, **kwargs) as client:
        return client.models()


class RetryTest(unittest.TestCase):
    def test_waits_as_long_as_the_server_says_and_succeeds(self):
        for call in (generate, generate_async, models):
            servicer = Server([FULL, refusal(grpc.StatusCode.UNAVAILABLE)])
            start = time.monotonic()
            with self.subTest(call.__name__), serve(servicer) as address:
                self.assertTrue(call(address, retry=QUICK))
                self.assertEqual(servicer.calls, 3)
                self.assertGreater(time.monotonic() - start, 0.05)

    def test_is_bounded(self):
        for call in (generate, generate_async, models):
            servicer = Server([FULL] * 20)
            with self.subTest(call.__name__), serve(servicer) as address:
                with self.assertRaises(acuity.ResourceExhaustedError) as raised:
                    call(address, retry=QUICK)
                self.assertEqual(servicer.calls, QUICK.attempts)
                self.assertEqual(raised.exception.reason, "QUEUE_FULL")
                self.assertAlmostEqual(raised.exception.retry_delay, 0.05)

    def test_never_after_the_first_token(self):
        for call in (generate, generate_async):
            servicer = Server([refusal(grpc.StatusCode.UNAVAILABLE, 0.01)], tokens_before=1)
            with self.subTest(call.__name__), serve(servicer) as address:
                with self.assertRaises(acuity.UnavailableError):
                    call(address, retry=QUICK)
                self.assertEqual(servicer.calls, 1)

    def test_not_what_waiting_does_not_help(self):
        for refused, kind in ((refusal(grpc.StatusCode.RESOURCE_EXHAUSTED), acuity.ResourceExhaustedError),
                              (refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 3600), acuity.ResourceExhaustedError),
                              (refusal(grpc.StatusCode.UNAUTHENTICATED), acuity.UnauthenticatedError),
                              (refusal(grpc.StatusCode.PERMISSION_DENIED), acuity.PermissionDeniedError),
                              (refusal(grpc.StatusCode.FAILED_PRECONDITION), acuity.FailedPreconditionError),
                              (refusal(grpc.StatusCode.INTERNAL, 0.01), acuity.InternalError),
                              (refusal(grpc.StatusCode.DATA_LOSS, 0.01), acuity.InternalError)):
            servicer = Server([refused])
            with self.subTest(str(refused[0])), serve(servicer) as address:
                with self.assertRaises(kind) as raised:
                    generate(address, retry=QUICK)
                self.assertEqual((servicer.calls, raised.exception.code), (1, refused[0].name))

    def test_the_timeout_covers_the_retries(self):
        servicer = Server([refusal(grpc.StatusCode.UNAVAILABLE, 0.2)] * 20)
        start = time.monotonic()
        with serve(servicer) as address, self.assertRaises(acuity.UnavailableError):
            generate(address, timeout=0.5, retry=acuity.Retry(attempts=20))
        self.assertLess(time.monotonic() - start, 0.6)
        self.assertLess(servicer.deadlines[-1], servicer.deadlines[0])

    def test_cancel_ends_the_wait(self):
        with serve(Server([refusal(grpc.StatusCode.UNAVAILABLE, 5)])) as address:
            with acuity.Client(address, model="m") as client:
                stream = client.stream("x")
                start = time.monotonic()
                with futures.ThreadPoolExecutor(1) as pool:
                    result = pool.submit(stream.result)
                    time.sleep(0.2)
                    stream.cancel()
                    self.assertIsInstance(result.exception(5), acuity.CancelledError)
                self.assertLess(time.monotonic() - start, 3)

    def test_the_wait_is_jittered_and_grows(self):
        error = acuity.UnavailableError("UNAVAILABLE", "")
        waits = [[acuity.Retry().delay(error, attempt, None) for _ in range(50)] for attempt in (1, 2, 3)]
        for attempt, group in enumerate(waits):
            self.assertGreater(len(set(group)), 40)
            self.assertGreaterEqual(min(group), 0.1 * 2**attempt)
            self.assertLessEqual(max(group), 0.15 * 2**attempt)

    def test_an_error_that_is_not_rich(self):
        code, message, _ = refusal(grpc.StatusCode.INVALID_ARGUMENT, message="no")
        with serve(Server([(code, message, (("grpc-status-details-bin", b"\xff\xff"),))])) as address:
            with self.assertRaises(acuity.InvalidArgumentError) as raised:
                generate(address)
        self.assertEqual((raised.exception.message, raised.exception.reason), ("no", ""))


class SecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
                    "-subj", "/CN=test authority")
        for name in ("server", "client"):
            cls.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                        f"/CN={name}")
            (cls.folder / "names").write_text("subjectAltName=DNS:localhost,DNS:inside.test")
            cls.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                        "-out", f"{name}.pem", "-days", "2", "-extfile", "names")

    @classmethod
    def openssl(cls, *arguments):
        subprocess.run(["openssl", *arguments], cwd=cls.folder, check=True, capture_output=True)

    def pem(self, name):
        return (self.folder / name).read_bytes()

    def credentials(self, mutual):
        return grpc.ssl_server_credentials([(self.pem("server.key"), self.pem("server.pem"))], self.pem("ca.pem"), mutual)

    def test_tls(self):
        servicer = Server()
        with serve(servicer, self.credentials(False)) as address:
            for call in (generate, generate_async):
                self.assertEqual(call(address, root_certificates=self.folder / "ca.pem").text, "yes")
                self.assertEqual(call(address, root_certificates=self.pem("ca.pem"), server_name="inside.test").text, "yes")
                for wrong in (dict(tls=True), dict(), dict(root_certificates=self.pem("ca.pem"), server_name="else.test")):
                    with self.assertRaises(acuity.UnavailableError):
                        call(address, retry=acuity.Retry(attempts=1), timeout=10, **wrong)
        self.assertEqual(servicer.calls, 4)

    def test_client_certificates(self):
        servicer = Server()
        with serve(servicer, self.credentials(True)) as address:
            for call in (generate, generate_async):
                mine = dict(client_certificate=self.folder / "client.pem", client_key=str(self.folder / "client.key"))
                self.assertEqual(call(address, root_certificates=self.pem("ca.pem"), **mine).text, "yes")
                with self.assertRaises(acuity.UnavailableError):
                    call(address, root_certificates=self.pem("ca.pem"), retry=acuity.Retry(attempts=1), timeout=10)
        self.assertEqual(servicer.calls, 2)

    def test_tokens(self):
        servicer = Server()
        with serve(servicer) as address:
            tokens = iter(("first", "second"))
            with acuity.Client(address, model="m", token=lambda: next(tokens, "later")) as client:
                client.generate("x")
                client.models()
            generate_async(address, token="s3cret")
            generate(address)
        sent = [m.get("authorization") for m in servicer.metadata]
        self.assertEqual(sent, ["Bearer first", "Bearer second", "Bearer s3cret", None])

    def test_a_token_does_not_leave_in_clear(self):
        with self.assertRaisesRegex(ValueError, "clear text"):
            acuity.AsyncClient("10.0.0.1:8700", token="x")
        for address in ("127.0.0.1:1", "unix:/run/a.sock", "[::1]:1"):
            acuity.Client(address, token="x").close()
        acuity.Client("10.0.0.1:8700", token="x", allow_plaintext_token=True).close()
        acuity.Client("10.0.0.1:8700", token="x", tls=True).close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
