"""The shipped twins (models/needle), served: they compute what their trainer computed, and far beyond the trained length
SSMax recalls what softmax has lost.
"""

import concurrent.futures
import json
import sys
import unittest

import numpy as np
from harness import ROOT, Daemon, pb

sys.path.insert(0, str(ROOT / "models/needle"))

import recall  # noqa: E402

WEIGHTS = ROOT / "models/needle/weights"
LENGTH = 4096  # 32 times the trained length
PROMPTS = 8
LOGPROB_TOLERANCE = 2e-4


class NeedleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.golden = json.loads((ROOT / "tests/parity/golden/needle.json").read_text())  # by task
        others = [name for of_task in cls.golden.values() for name in of_task["logprobs"] if name != "softmax-0"]
        flags = [flag for name in others for flag in ("--model", f"{name}={WEIGHTS / name}")]
        cls.daemon = cls.enterClassContext(
            Daemon("--max-context", "8192", "--kv-memory", "16MiB", "--dtype", "float32", *flags,
                   "--model", f"auto={WEIGHTS / 'softmax-0'}", "--attention", "auto=ssmax:auto:128",
                   model="softmax-0", path=WEIGHTS / "softmax-0"))

    def generate(self, model, ids, attention=pb.ATTENTION_DETAIL_OFF):
        request = self.daemon.request(ids=ids, attention=attention, temperature=0, max_tokens=1, ignore_eos=True)
        request.model = model
        messages = list(self.daemon.stub.Generate(request, timeout=300))
        return [i for m in messages for d in m.deltas for i in d.token_ids][0], messages[-1].result

    def ask(self, model, prompt):
        """(answers that are right, [layers] means over heads of (H / ln n, max p) of the first question's row)."""
        body = len(prompt) - recall.TAIL
        right, sharpness = 0, []
        for i in range(body, len(prompt), 2):
            detail = pb.ATTENTION_DETAIL_LAYERS if i == body else pb.ATTENTION_DETAIL_OFF
            token, result = self.generate(model, prompt[:i + 1], detail)
            right += token == prompt[i + 1]
            if i == body:
                for layer in result.prompt_attention.layers:
                    # The row of the question is the only one that sees LENGTH keys.
                    (bucket,) = (bucket for bucket in layer.buckets if bucket.n_min == LENGTH)
                    self.assertEqual(bucket.rows, 1)
                    sharpness.append((bucket.normalized_entropy, bucket.max_probability))
        return right, sharpness

    def measure(self, model):
        """(recall, mean normalised entropy of the questions' rows in the last layer)."""
        # The first question is token LENGTH.
        prompts = recall.batch(PROMPTS, LENGTH - 1 + recall.TAIL, np.random.default_rng(5)).tolist()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda prompt: self.ask(model, prompt), prompts))
        share = sum(right for right, _ in answers) / (PROMPTS * recall.PAIRS)
        sharpness = np.mean([layers for _, layers in answers], 0)
        rows = "; ".join(f"layer {i}: H / ln n {h:.3f}, max p {p:.3f}" for i, (h, p) in enumerate(sharpness))
        print(f"{model} at {LENGTH}: recall {share:.3f}; {rows}")
        return share, sharpness[-1][0]

    def test_computes_what_the_trainer_computes(self):
        named = [(name, logprobs, of_task["token_ids"]) for of_task in self.golden.values()
                 for name, logprobs in of_task["logprobs"].items()]
        self.assertEqual({name for name, _, _ in named}, {path.name for path in WEIGHTS.iterdir()})
        for name, expected, ids in named:
            scored = self.daemon.stub.Score(pb.ScoreRequest(
                model=name, prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids))))
            worst = max(abs(a - b) for a, b in zip(scored.logprobs[1:], expected, strict=True))
            print(f"{name}: largest difference to torch {worst:.1e}")
            self.assertLessEqual(worst, LOGPROB_TOLERANCE, name)

    def test_ssmax_recalls_what_softmax_loses(self):
        softmax, softmax_entropy = self.measure("softmax-0")
        ssmax, ssmax_entropy = self.measure("ssmax-0")
        self.assertGreaterEqual(ssmax, 0.95)
        self.assertLess(softmax, 0.8)
        self.assertGreater(softmax_entropy, ssmax_entropy + 0.3)

    def test_policies_are_what_the_files_say(self):
        policies = {model.name: model.attention_policy
                    for model in self.daemon.stub.ListModels(pb.ListModelsRequest()).models}
        self.assertEqual(policies["softmax-0"], "softmax")
        self.assertEqual(policies["ssmax-0"], "ssmax:s=tensor")
        self.assertRegex(policies["auto"], "^ssmax:s=0.25785")  # of the trained length, which the file does not tell

    def test_a_language_models_tokens_are_bytes(self):
        text = "tab\t, line\n, NUL \0, \u00e9\u20ac\U0001f642 <end>".encode()
        request = pb.TokenizeRequest(model="text-ssmax-0", prompt=pb.Prompt(text=text))
        self.assertEqual(list(self.daemon.stub.Tokenize(request).token_ids), list(text))
        said = self.daemon.stub.Detokenize(pb.DetokenizeRequest(model="text-ssmax-0", token_ids=list(text))).text
        self.assertEqual(said.encode(), text)

    def test_prompts_can_be_typed(self):
        """What a person types is the tokens of the task, and the answer is the value after the key."""
        prompt = "hay,hay K7 hay;hay Q+ hay.B1 C2 D3 hay:E4 hay K"
        self.assertEqual(self.daemon.tokenize(prompt), [recall.SYMBOLS.index(symbol) for symbol in prompt])
        request = self.daemon.request(prompt, temperature=0, max_tokens=1)
        for model in ("softmax-0", "ssmax-0"):
            request.model = model
            answer = "".join(d.text for m in self.daemon.stub.Generate(request) for d in m.deltas)
            self.assertEqual(answer, "7", model)


if __name__ == "__main__":
    unittest.main(verbosity=2)
