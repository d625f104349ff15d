"""Watched spans: the attention that parts of a prompt get, against the statistics that the same rows report."""

import json
import math
import unittest

import grpc
from harness import MODEL, Daemon, acuity, long_text, pb


class SpansTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--model", f"twin={MODEL}", "--attention", "twin=ssmax:auto", "--max-context", "1024",
                            "--kv-memory", "128MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.ids = cls.daemon.tokenize(long_text(400))

    def watch(self, ids, spans, model="smol", **sampling):
        request = self.daemon.request(ids=ids, temperature=0, ignore_eos=True, **sampling)
        request.model = model
        for begin, end in spans:
            request.watch.add(begin=begin, end=end)
        return [message for message in self.daemon.stub.Generate(request)][-1].result

    def test_one_span_for_each_key_is_the_distribution(self):
        ids = self.ids[:8]
        for model in ("smol", "twin"):
            result = self.watch(ids, [(i, i + 1) for i in range(8)], model, max_tokens=1)
            report = result.prompt_spans
            self.assertEqual((report.rows, len(report.layers), len(report.layers[0].heads)), (1, 30, 9))
            self.assertFalse(result.HasField("generated_spans"))
            for layer in report.layers:
                for head in layer.heads:
                    self.assertAlmostEqual(sum(head.mass), 1, delta=1e-5)
                    self.assertAlmostEqual(max(head.mass), head.max_probability, delta=1e-5)
                    entropy = -sum(p * math.log(p) for p in head.mass if p > 0)
                    self.assertAlmostEqual(entropy / math.log(8), head.normalized_entropy, delta=1e-4)
                    self.assertAlmostEqual(math.exp(entropy), head.effective_context, delta=1e-3)

    def test_the_parts_of_a_prompt_add_up_chunked_cached_or_not(self):
        size = len(self.ids)
        spans = [(0, 1), (1, 100), (100, size - 1), (size - 1, size), (0, size)]
        first = self.watch(self.ids, spans, max_tokens=1, tenant="fresh")
        again = self.watch(self.ids, spans, max_tokens=1, tenant="fresh")
        self.assertEqual(first.usage.cached_tokens, 0)
        self.assertGreater(again.usage.cached_tokens, size // 2)
        self.assertEqual(first.prompt_spans, again.prompt_spans)  # to the bit
        for layer in first.prompt_spans.layers:
            for head in layer.heads:
                self.assertAlmostEqual(sum(head.mass[:4]), 1, delta=1e-4)
                self.assertAlmostEqual(head.mass[4], 1, delta=1e-4)

    def test_rows_of_the_output(self):
        ids = self.ids[:50]
        result = self.watch(ids, [(0, 50)], max_tokens=6)
        self.assertEqual((result.prompt_spans.rows, result.generated_spans.rows), (1, 5))
        masses = [head.mass[0] for layer in result.generated_spans.layers for head in layer.heads]
        self.assertTrue(all(0 <= mass <= 1 for mass in masses))
        self.assertLess(min(masses), 0.9)  # some heads attend to the output
        # Each row is the last one of a longer prompt.
        stream = self.daemon.generate(ids=ids, temperature=0, ignore_eos=True, max_tokens=6)
        longer = [self.watch(ids + stream.token_ids[:n], [(0, 50)], max_tokens=1).prompt_spans for n in range(1, 6)]
        for index, layer in enumerate(result.generated_spans.layers):
            for head in layer.heads:
                mean = sum(r.layers[index].heads[head.head].mass[0] for r in longer) / 5
                self.assertAlmostEqual(head.mass[0], mean, delta=1e-6)
        # With several samples, the prompt's row is one row still.
        several = self.watch(ids, [(0, 50)], max_tokens=3, n=2)
        self.assertEqual((several.prompt_spans.rows, several.generated_spans.rows), (1, 4))

    def test_nothing_is_measured_unless_asked(self):
        result = self.watch(self.ids[:20], [], max_tokens=2)
        self.assertFalse(result.HasField("prompt_spans") or result.HasField("prompt_attention"))
        # Watching alone reports the spans alone.
        result = self.watch(self.ids[:20], [(0, 3)], max_tokens=2)
        self.assertTrue(result.HasField("prompt_spans"))
        self.assertFalse(result.HasField("prompt_attention"))

    def score(self, ids, spans, model="smol"):
        request = pb.ScoreRequest(model=model, prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids)),
                                  watch=[pb.TokenSpan(begin=begin, end=end) for begin, end in spans])
        return self.daemon.stub.Score(request)

    def test_scoring_reports_the_same_row(self):
        spans = [(0, 1), (1, 100), (7, 8), (0, len(self.ids))]
        for model in ("smol", "twin"):
            for ids, watched in ((self.ids, spans), (self.ids[:1], spans[:1])):
                generated = self.watch(ids, watched, model, max_tokens=1, tenant="scored")
                scored = self.score(ids, watched, model)
                self.assertEqual(scored.prompt_spans, generated.prompt_spans)  # to the bit
                self.assertEqual((scored.prompt_spans.rows, len(scored.logprobs)), (1, len(ids)))
                self.assertFalse(scored.HasField("prompt_attention"))
        self.assertFalse(self.score(self.ids[:20], []).HasField("prompt_spans"))

    def test_errors_name_the_field_the_value_and_the_limit(self):
        for spans, message in (([(0, 1)] * 9, "watch: 9 spans, the limit is 8"),
                               ([(0, 21)], "watch: [0, 21) is no part of the prompt's tokens, [0, 20)"),
                               ([(0, 2), (-1, 2)], "watch: [-1, 2)"), ([(5, 5)], "watch: [5, 5)"),
                               ([(7, 3)], "watch: [7, 3)")):
            for call in (lambda: self.watch(self.ids[:20], spans, max_tokens=1),
                         lambda: self.score(self.ids[:20], spans)):
                with self.assertRaises(grpc.RpcError) as caught:
                    call()
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn(message, caught.exception.details())

    def test_command_line(self):
        run = acuity("generate", "--prompt", "The capital of France is", "--max-tokens", "2", "--temperature", "0",
                     "--watch", "3:4", "--watch", "0:5", server=self.daemon.address)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("is on tokens 3:4, mean of all heads; most of layer", run.stdout)
        self.assertIn("The prompt's last row: 1.0000 of the attention is on tokens 0:5", run.stdout)
        for command in ("generate", "score"):
            bad = acuity(command, "--prompt", "x", "--watch", "3", server=self.daemon.address)
            self.assertEqual(bad.returncode, 2)
            self.assertIn("BEGIN:END", bad.stderr)

    def test_command_line_of_score(self):
        flags = ("score", "--prompt", "The capital of France is", "--watch", "3:4", "--watch", "0:5", "--model", "smol")
        run = acuity(*flags, server=self.daemon.address)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("is on tokens 3:4, mean of all heads; most of layer", run.stdout)
        self.assertIn("The prompt's last row: 1.0000 of the attention is on tokens 0:5", run.stdout)
        told = json.loads(acuity(*flags, "--json", server=self.daemon.address).stdout)["spans"]
        self.assertEqual(list(told), ["prompt"])
        ids = self.daemon.tokenize("The capital of France is")
        wanted = self.score(ids, [(3, 4), (0, 5)]).prompt_spans
        self.assertEqual([head["mass"] for layer in told["prompt"]["layers"] for head in layer["heads"]],
                         [list(head.mass) for layer in wanted.layers for head in layer.heads])


if __name__ == "__main__":
    unittest.main(verbosity=2)
