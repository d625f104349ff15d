"""The `acuity` client as other programs rely on it."""

import json
import unittest

from harness import Daemon, acuity, long_text, temporary_file


class CommandLineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--max-context", "2048", "--kv-memory", "128MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def run_json(self, *arguments):
        run = acuity(*arguments, "--json", server=self.daemon.address)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def test_health_and_models(self):
        self.assertEqual(self.run_json("health"), {"status": "SERVING"})
        model = self.run_json("models")["models"][0]
        self.assertEqual((model["name"], model["dtype"], model["stored_type"]),
                         ("smol", "bfloat16", "Q4_1"))

    def test_tokenize_and_score(self):
        text = "Attention fades, 1234 times."
        ids = self.run_json("tokenize", "--model", "smol", "--prompt", text)["token_ids"]
        self.assertEqual(ids, self.daemon.tokenize(text))
        scored = self.run_json("score", "--model", "smol", "--prompt-file", temporary_file(text))
        self.assertEqual(scored["token_ids"], ids)
        self.assertIsNone(scored["logprobs"][0])
        self.assertTrue(all(-40 < l < 0 for l in scored["logprobs"][1:]))

    def test_generate_json(self):
        out = self.run_json("generate", "--model", "smol", "--prompt", "The capital of France is",
                            "--max-tokens", "8", "--temperature", "0", "--seed", "3",
                            "--attention", "heads")
        self.assertIn("Paris", out["text"])
        self.assertEqual(len(out["token_ids"]), out["usage"]["completion_tokens"])
        self.assertIn(out["finish_reason"], ("stop", "length"))
        self.assertEqual(set(out["attention"]), {"prompt", "generated"})
        layers = out["attention"]["prompt"]["layers"]
        self.assertEqual(len(layers), 30)
        self.assertEqual(len(layers[0]["heads"]), 9)
        bucket = layers[3]["buckets"][1]
        self.assertEqual((bucket["n_min"], bucket["n_max"], bucket["rows"]), (2, 3, 2))
        self.assertEqual(layers[0]["buckets"][0]["normalized_entropy"], 1)

    def test_generate_streams_text_and_draws_the_report(self):
        run = acuity("generate", "--chat", "Name a colour.", "--temperature", "0", "--max-tokens",
                     "12", "--report", server=self.daemon.address)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("H / ln n", run.stdout)
        self.assertIn("layer  29", run.stdout)
        self.assertIn("tokens/s", run.stderr)

    def test_bench_and_top(self):
        result = self.run_json("bench", "--requests", "6", "--concurrency", "3", "--prompt-tokens",
                               "20", "--max-tokens", "5")
        self.assertEqual(result["failed"], 0)
        self.assertGreater(result["output_tokens_per_second"], 0)
        self.assertGreater(result["time_to_first_token_seconds"]["p99"], 0)
        open_loop = self.run_json("bench", "--requests", "5", "--rate", "20", "--prompt-tokens", "8",
                                  "--max-tokens", "2")
        self.assertEqual(open_loop["failed"], 0)
        long = acuity("score", "--prompt-file", temporary_file(long_text(1100)),
                      server=self.daemon.address)
        self.assertEqual(long.returncode, 0, long.stderr)
        top = acuity("top", "--iterations", "1", server=self.daemon.address)
        self.assertEqual(top.returncode, 0, top.stderr)
        self.assertIn("running", top.stdout)
        self.assertIn("layers  0-9", top.stdout)

    def test_errors(self):
        run = acuity("generate", "--model", "nope", "--prompt", "x", server=self.daemon.address)
        self.assertEqual(run.returncode, 1)
        self.assertIn("nope", run.stderr)
        run = acuity("generate", "--prompt", "x", "--temperature", "-1", server=self.daemon.address)
        self.assertEqual(run.returncode, 1)
        self.assertIn("sampling.temperature", run.stderr)
        self.assertEqual(acuity("generate", "--nonsense").returncode, 2)
        self.assertEqual(acuity("generate").returncode, 2)
        self.assertEqual(acuity().returncode, 2)
        run = acuity("health", server="127.0.0.1:1")
        self.assertEqual(run.returncode, 1)
        self.assertIn("UNAVAILABLE", run.stderr)
        run = acuity("score", "--prompt-file", "/no/such/file", server=self.daemon.address)
        self.assertEqual(run.returncode, 1)
        self.assertIn("/no/such/file", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
