"""The attention report, end to end: what a client receives against the attention matrices of transformers.

float32 weights, KV and kernels but where a test says so; tests/parity/README.md says how the goldens were made.
"""

import gzip
import json
import unittest

from harness import ROOT, Daemon, pb

TOLERANCE = 1e-4
STATISTICS = {"entropy": "entropy", "normalized_entropy": "normalized_entropy",
              "max_probability": "max_probability"}


class AttentionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = ROOT / "tests/parity/golden/attention.json.gz"
        cls.golden = json.loads(gzip.decompress(path.read_bytes()))

    def compare(self, policy, *flags):
        expected = self.golden["policies"][policy]["mean"]
        with Daemon("--dtype", "float32", "--max-context", "1024", "--kv-memory", "256MiB",
                    "--max-batch-tokens", "200", *flags) as daemon:
            answer = daemon.generate(ids=self.golden["token_ids"], max_tokens=2, ignore_eos=True,
                                     attention=pb.ATTENTION_DETAIL_HEADS)
            scored = daemon.stub.Score(pb.ScoreRequest(model="smol", prompt=pb.Prompt(
                token_ids=pb.TokenIds(ids=self.golden["token_ids"]))))
        report = answer.result.prompt_attention
        worst, compared = {name: 0.0 for name in STATISTICS}, 0
        for layer in report.layers:
            for head in layer.heads:
                for index, bucket in enumerate(head.buckets):
                    self.assertEqual(bucket.n_min, 2**index)
                    self.assertEqual(bucket.rows, self.golden["rows"][index])
                    for name, field in STATISTICS.items():
                        wanted = expected[name][layer.layer][head.head][index]
                        got = getattr(bucket, field)
                        worst[name] = max(worst[name], abs(got - wanted))
                        compared += 1
        figures = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
        print(f"{policy}: {compared} values, largest difference: {figures}")
        self.assertEqual(compared, 30 * 9 * 10 * len(STATISTICS))
        for name, value in worst.items():
            self.assertLessEqual(value, TOLERANCE, name)
        wanted = self.golden["policies"][policy]["logprobs"]
        self.assertLessEqual(max(abs(a - b) for a, b in zip(scored.logprobs[1:], wanted[1:])), 1e-3)
        # The generated token's own row sees the prompt and itself.
        (bucket,) = answer.result.generated_attention.layers[0].buckets
        self.assertEqual((bucket.n_min, bucket.rows), (512, 1))

    def test_eight_bit_pages(self):
        """They have no golden: what they do to the statistics of softmax is small, and they say what they are."""
        expected = self.golden["policies"]["softmax"]["mean"]["entropy"]
        with Daemon("--kv-dtype", "float8", "--max-context", "1024", "--kv-memory", "64MiB") as daemon:
            answer = daemon.generate(ids=self.golden["token_ids"], max_tokens=8, ignore_eos=True,
                                     attention=pb.ATTENTION_DETAIL_HEADS)
            model = daemon.stub.GetModel(pb.GetModelRequest(model="smol"))
            self.assertIn('dtype="float8"', daemon.metrics_text())
        self.assertEqual((model.dtype, model.kv_dtype), ("bfloat16", "float8"))
        self.assertEqual(model.num_blocks, (64 << 20) // (30 * 2 * 3 * 64 * 16))
        self.assertEqual(daemon.event("model loaded")["kv_dtype"], "float8")
        self.assertEqual(answer.result.usage.completion_tokens, 8)
        differences = [bucket.entropy - expected[layer.layer][head.head][index]
                       for layer in answer.result.prompt_attention.layers for head in layer.heads
                       for index, bucket in enumerate(head.buckets)]
        print(f"8-bit pages: entropy {sum(differences) / len(differences):+.1e} on average, "
              f"{max(map(abs, differences)):.1e} at most")
        self.assertLess(abs(sum(differences) / len(differences)), 0.02)

    def test_softmax(self):
        self.compare("softmax")

    def test_ssmax(self):
        self.compare("ssmax", "--attention", "smol=ssmax:auto")


if __name__ == "__main__":
    unittest.main(verbosity=2)
