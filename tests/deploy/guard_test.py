"""The two configurations of the guard, run by the real HAProxy on free ports.

Plain: the guard passes gRPC and nothing else. TLS: clients' bytes pass through unread, and the probe port asks the
daemon's health with the guard's own certificate. The daemon of the second is a stand-in that only ends TLS and shows
who called, since what is tested is the guard's side of the handshake.
"""
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Guard:
    """HAProxy with deploy/haproxy/NAME, its ports and folders replaced."""

    def __init__(self, name, folder, backend, certificates="/etc/acuity"):
        self.grpc, self.probes, self.status = free_ports(3)
        text = (ROOT / "deploy/haproxy" / name).read_text().replace("/etc/acuity", str(certificates))
        for fixed, port in ((8700, self.grpc), (8702, self.probes), (8703, self.status)):
            text = re.sub(rf"bind :{fixed}\b", f"bind 127.0.0.1:{port}", text)
        path = pathlib.Path(folder, name)
        path.write_text(text.replace("log stdout", "log stderr"))
        self.process = subprocess.Popen(["haproxy", "-W", "-db", "-f", path], env={**os.environ, "ACUITY_BACKEND": backend},
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.status), 1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificates(folder):
    """One authority; tls/{ca.crt,tls.crt,tls.key} of the daemon and probe/probe.pem of the guard."""
    for sub in ("tls", "probe"):
        pathlib.Path(folder, sub).mkdir()
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
            "-out", "tls/ca.crt", "-subj", "/CN=authority", "-days", "2")
    for name, sub in (("daemon", "tls/tls"), ("guard", "probe/probe")):
        openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{sub}.key",
                "-out", "request.csr", "-subj", f"/CN={name}")
        openssl(folder, "x509", "-req", "-in", "request.csr", "-CA", "tls/ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{sub}.crt", "-days", "2")
    pathlib.Path(folder, "probe/probe.pem").write_text(
        pathlib.Path(folder, "probe/probe.crt").read_text() + pathlib.Path(folder, "probe/probe.key").read_text())


class TlsEnd(threading.Thread):
    """Demands a client certificate; keeps each caller's name and the first bytes of what it says."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(f"{folder}/tls/tls.crt", f"{folder}/tls/tls.key")
        self.context.load_verify_locations(f"{folder}/tls/ca.crt")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.set_alpn_protocols(["h2"])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.callers = []

    def run(self):
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(raw, server_side=True) as connection:
                    name = dict(part[0] for part in connection.getpeercert()["subject"])["commonName"]
                    self.callers.append((name, connection.recv(24)))
            except (ssl.SSLError, OSError):
                self.callers.append((None, b""))


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def h2_headers(path):
    """Preface, empty SETTINGS and a HEADERS frame of a gRPC call, without a table and without compression."""
    def literal(name, value):
        return bytes([0, len(name)]) + name + bytes([len(value)]) + value
    block = (literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":path", path) +
             literal(b":authority", b"a") + literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers"))
    frame = len(block).to_bytes(3, "big") + bytes([1, 5]) + (1).to_bytes(4, "big") + block
    return PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + frame


class GuardTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def guard(self, *arguments, **kwargs):
        guard = Guard(*arguments, **kwargs)
        self.addCleanup(guard.stop)
        return guard

    def test_both_configurations_are_valid(self):
        certificates(self.folder.name)
        for name in ("haproxy.cfg", "haproxy-tls.cfg"):
            text = (ROOT / "deploy/haproxy" / name).read_text().replace("/etc/acuity", self.folder.name)
            path = pathlib.Path(self.folder.name, name)
            path.write_text(text)
            run = subprocess.run(["haproxy", "-c", "-f", path], capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertNotIn("WARNING", run.stderr)

    def test_plain_a_header_block_above_a_buffer_ends_the_connection(self):
        backend = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(backend.close)
        guard = self.guard("haproxy.cfg", self.folder.name, "127.0.0.1:%d" % backend.getsockname()[1])
        with socket.create_connection(("127.0.0.1", guard.grpc), 5) as client:
            client.sendall(PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            # HEADERS without END_HEADERS, then CONTINUATION frames for as long as the other side listens.
            block = bytes([0, 1]) + b"x" + bytes([100]) + b"y" * 100
            client.sendall(len(block).to_bytes(3, "big") + bytes([1, 0]) + (1).to_bytes(4, "big") + block)
            sent = 0
            with self.assertRaises(OSError):
                while sent < 4 << 20:
                    client.sendall(len(block).to_bytes(3, "big") + bytes([9, 0]) + (1).to_bytes(4, "big") + block)
                    sent += len(block)
                    if sent % 100 == 0:
                        time.sleep(0.001)
        self.assertLess(sent, 1 << 20)

    def test_tls_passes_clients_through_and_shows_its_own_certificate_for_the_probe(self):
        certificates(self.folder.name)
        daemon = TlsEnd(self.folder.name)
        self.addCleanup(daemon.listener.close)
        daemon.start()
        guard = self.guard("haproxy-tls.cfg", self.folder.name, daemon.address, certificates=self.folder.name)

        with socket.create_connection(("127.0.0.1", guard.probes), 5) as kubelet:
            kubelet.sendall(h2_headers(b"/grpc.health.v1.Health/Check"))
            kubelet.settimeout(5)
            while not daemon.callers:
                kubelet.recv(1024)
        self.assertEqual(daemon.callers[0][0], "guard")
        self.assertTrue(PREFACE.startswith(daemon.callers[0][1][:10]), daemon.callers)

        seen = len(daemon.callers)
        with socket.create_connection(("127.0.0.1", guard.probes), 5) as other:
            other.sendall(h2_headers(b"/acuity.v1.Acuity/Generate"))
            other.settimeout(5)
            self.assertIn(b"403", self.read_some(other))  # HAProxy writes it as a plain literal
        self.assertEqual(len(daemon.callers), seen, "it reached the daemon")

        context = ssl.create_default_context(cafile=f"{self.folder.name}/tls/ca.crt")
        context.check_hostname = False
        context.load_cert_chain(f"{self.folder.name}/tls/tls.crt", f"{self.folder.name}/tls/tls.key")
        with context.wrap_socket(socket.create_connection(("127.0.0.1", guard.grpc), 5)) as client:
            client.sendall(b"hello")
            end = time.monotonic() + 5
            while len(daemon.callers) == seen and time.monotonic() < end:
                time.sleep(0.02)
        self.assertEqual(daemon.callers[-1], ("daemon", b"hello"))

        with socket.create_connection(("127.0.0.1", guard.grpc), 10) as plain:
            plain.sendall(PREFACE)
            self.assertEqual(plain.recv(1), b"", "plaintext is closed")
        self.assertEqual(len(daemon.callers), seen + 1)

    @staticmethod
    def read_some(connection):
        """What comes within two seconds."""
        connection.settimeout(2)
        data = b""
        try:
            while part := connection.recv(4096):
                data += part
        except OSError:
            pass
        return data


if __name__ == "__main__":
    unittest.main(verbosity=2)
