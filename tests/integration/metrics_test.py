"""/metrics: valid, documented row by row, true to what ran, and not to be blocked by a half-open scraper."""

import gzip
import json
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import unittest
import urllib.request

import grpc
import numpy as np

from harness import ROOT, Daemon, long_text, pb


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--max-context", "2048", "--kv-memory", "128MiB",
                            "--report-min-tokens", "600").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.answer = cls.daemon.generate(long_text(1200), temperature=0, max_tokens=5, ignore_eos=True)
        cls.short = cls.daemon.generate("Short.", temperature=0, max_tokens=7, ignore_eos=True)
        try:
            cls.daemon.generate("x", n=99)
        except grpc.RpcError:
            pass

    def test_promtool_accepts_it(self):
        check = subprocess.run(["promtool", "check", "metrics"], input=self.daemon.metrics_text(),
                               capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def test_every_row_is_documented_and_every_documented_row_is_there(self):
        text = self.daemon.metrics_text()
        served = {(n, k) for n, k in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M)
                  if n.startswith("acuity_")}
        table = (ROOT / "docs/metrics.md").read_text()
        documented = set(re.findall(r"^\| `(acuity_\w+)` \| (\w+) \|", table, re.M))
        self.assertEqual(served, documented)

    def test_counts_are_those_of_the_requests(self):
        metric = self.daemon.metric
        prompts = sum(a.result.usage.prompt_tokens for a in (self.answer, self.short))
        self.assertEqual(metric("acuity_prompt_tokens_total"), prompts)
        self.assertEqual(metric("acuity_generation_tokens_total"), 12)
        self.assertEqual(metric("acuity_requests_total", finish_reason="length"), 2)
        self.assertEqual(metric("acuity_requests_rejected_total", reason="invalid"), 1)
        self.assertEqual(metric("acuity_time_to_first_token_seconds_count"), 2)
        self.assertEqual(metric("acuity_inter_token_latency_seconds_count"), 10)
        self.assertEqual(metric("acuity_requests_running"), 0)
        self.assertEqual(metric("acuity_kv_cache_utilization"), 0)

    def test_attention_is_that_of_the_report(self):
        layers = self.answer.result.prompt_attention.layers
        self.assertEqual([(l.layer, l.last_layer) for l in layers], [(0, 9), (10, 19), (20, 29)])
        for name, band in zip(("front", "middle", "back"), layers):
            for bucket in band.buckets:
                labels = dict(layers=name, context=str(bucket.n_min))
                count = self.daemon.metric("acuity_attention_normalized_entropy_count", **labels)
                self.assertEqual(count, 1 if bucket.n_min >= 256 else 0)
                if count:
                    self.assertAlmostEqual(
                        self.daemon.metric("acuity_attention_last_normalized_entropy", **labels),
                        bucket.normalized_entropy, places=5)
                    self.assertAlmostEqual(
                        self.daemon.metric("acuity_attention_max_probability_sum", **labels),
                        bucket.max_probability, places=5)

    def test_compressed_for_those_who_ask(self):
        url = f"http://{self.daemon.metrics_address}/metrics"
        for accepts, compressed in (("gzip", True), ("deflate, GZIP ; q=0.5", True), ("gzip;q=0", False),
                                    ("gzip;q=0.0, deflate", False), ("br", False), (None, False)):
            with self.subTest(accepts=accepts):
                request = urllib.request.Request(url, headers={"Accept-Encoding": accepts} if accepts else {})
                with urllib.request.urlopen(request, timeout=10) as page:
                    body = page.read()
                    self.assertEqual(page.headers["Content-Encoding"], "gzip" if compressed else None)
                    self.assertEqual(page.headers["Content-Length"], str(len(body)))
                text = gzip.decompress(body) if compressed else body
                names = lambda t: re.findall(r"^# TYPE .*$", t, re.M)
                self.assertEqual(names(text.decode()), names(self.daemon.metrics_text()))
        tiny = urllib.request.Request(f"http://{self.daemon.metrics_address}/icon.svg", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(tiny, timeout=10) as page:
            self.assertIsNone(page.headers["Content-Encoding"])

    def test_half_open_scrapers_block_nobody(self):
        host, port = self.daemon.metrics_address.rsplit(":", 1)
        idle = [socket.create_connection((host, int(port))) for _ in range(12)]
        for connection in idle:
            connection.sendall(b"GET /metrics HT")
        start = time.time()
        self.daemon.metrics_text()
        self.assertLess(time.time() - start, 5)
        for connection in idle:
            connection.close()


def needle_of_large_values(folder):
    """The twin softmax-4 whose keys and values are a thousand times what they were."""
    shutil.copytree(ROOT / "models/needle/weights/softmax-4", folder, dirs_exist_ok=True)
    path = pathlib.Path(folder, "model.safetensors")
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    for name, tensor in json.loads(data[8:8 + size]).items():
        if "qkv_proj" in name:
            begin, end = (8 + size + offset for offset in tensor["data_offsets"])
            data[begin:end] = (np.frombuffer(data[begin:end], np.float32) * 1000).tobytes()
    path.write_bytes(data)


class SaturationTest(unittest.TestCase):
    """What an 8-bit KV cache cannot hold is counted, and the log says so once."""

    def saturated(self, path):
        with Daemon("--kv-dtype", "float8", model="m", path=path) as daemon:
            for _ in range(2):
                daemon.generate("box 7 is red, box 2 is blue", max_tokens=4, ignore_eos=True)
            end = time.time() + 20
            told = lambda: [line for line in daemon.log if "8-bit KV cache" in str(line.get("event"))]
            values = daemon.metric("acuity_kv_saturated_values_total", model="m")
            while values > 0 and not told() and time.time() < end:
                time.sleep(0.05)
            return values, told()

    def test_it_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            needle_of_large_values(folder)
            values, told = self.saturated(folder)
        self.assertGreater(values, 1000)
        self.assertEqual([line["model"] for line in told], ["m"])
        self.assertEqual(self.saturated(ROOT / "models/needle/weights/softmax-4"), (0, []))


if __name__ == "__main__":
    unittest.main(verbosity=2)
