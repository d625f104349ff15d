"""The Python client and the real daemon with client certificates and tokens."""

import asyncio
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "integration"))

import acuity  # noqa: E402
from certificates import Certificates, token_line  # noqa: E402
from harness import Daemon  # noqa: E402


class SecureTest(Certificates, unittest.TestCase):
    def test_mutual_tls_and_tokens(self):
        self.authority("ca")
        self.authority("clients")
        self.certificate("server", "ca")
        self.certificate("client", "clients")
        pathlib.Path(self.path("tokens")).write_text(token_line("ann", "a-secret"))
        flags = ("--tls-cert", self.path("server.crt"), "--tls-key", self.path("server.key"), "--tls-client-ca",
                 self.path("clients.crt"), "--auth-tokens", self.path("tokens"))
        with Daemon("--max-context", "512", "--kv-memory", "64MiB", *flags) as daemon:
            ca = dict(root_certificates=self.path("ca.crt"))
            pair = dict(client_certificate=self.path("client.crt"), client_key=self.path("client.key"))
            once = dict(model="smol", timeout=60, retry=acuity.Retry(attempts=1))
            with acuity.Client(daemon.address, token="a-secret", **ca, **pair, **once) as client:
                ours = client.generate("The capital of France is", temperature=0, max_tokens=6)
                self.assertIn("Paris", ours.text)
                self.assertEqual([m.name for m in client.models()], ["smol"])

            async def generate():
                async with acuity.AsyncClient(daemon.address, token="a-secret", **ca, **pair, **once) as client:
                    return await client.generate("The capital of France is", temperature=0, max_tokens=6)

            self.assertEqual(asyncio.run(generate()).text, ours.text)
            rows = [(dict(token="wrong", **ca, **pair), acuity.UnauthenticatedError),
                    (dict(**ca, **pair), acuity.UnauthenticatedError),
                    (dict(token="a-secret", **ca), acuity.UnavailableError),
                    (dict(token="a-secret", root_certificates=self.path("clients.crt"), **pair), acuity.UnavailableError),
                    (dict(token="a-secret"), acuity.UnavailableError)]
            for settings, error in rows:
                with self.subTest(settings=settings), acuity.Client(daemon.address, **settings, **once) as client:
                    with self.assertRaises(error):
                        client.generate("x", max_tokens=1)
            requests = [e for e in daemon.log if e.get("event") == "request"]
            self.assertEqual([e["tenant"] for e in requests], ["ann", "ann"])
            self.assertEqual(daemon.metric("acuity_unauthenticated_calls_total"), 2)
            self.assertNotIn("a-secret", str(daemon.log))


if __name__ == "__main__":
    unittest.main(verbosity=2)
