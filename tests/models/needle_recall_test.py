"""The prompts of models/needle: what recall.json promises of them."""

import json
import pathlib
import sys
import unittest

import numpy as np

NEEDLE = pathlib.Path(__file__).resolve().parents[2] / "models/needle"
sys.path.insert(0, str(NEEDLE))

import recall  # noqa: E402


def prompts(count, length, pairs=recall.PAIRS, seed=3):
    return recall.batch(count, length, np.random.default_rng(seed), pairs)


class RecallTest(unittest.TestCase):
    def check(self, row, pairs):
        told = recall.description()
        inside = {name: lambda t, r=told[name]: r[0] <= t <= r[1] for name in
                  ("noise_tokens", "key_tokens", "value_tokens")}
        body, tail = row[:-2 * pairs], row[-2 * pairs:]
        kinds = "".join(next(name[0] for name, has in inside.items() if has(t)) for t in body)
        self.assertEqual(kinds.count("kv"), pairs)
        self.assertEqual((kinds.count("k"), kinds.count("v")), (pairs, pairs))
        hidden = {body[i]: body[i + 1] for i, kind in enumerate(kinds) if kind == "k"}
        self.assertEqual(len(hidden), pairs, "keys are distinct")
        self.assertEqual(dict(zip(tail[::2], tail[1::2])), hidden)

    def test_each_key_is_asked_once_and_has_one_value(self):
        for length, pairs in ((8, 2), (12, 3), (24, 6), (25, 6), (128, 6), (4096, 6)):
            for row in prompts(20, length, pairs).tolist():
                self.check(row, pairs)

    def test_answers_are_the_values_of_the_tail(self):
        tokens = prompts(4, 64)
        self.assertTrue((recall.answers(tokens) == tokens[:, 64 - 11::2]).all())

    def test_places_and_order_are_uniform(self):
        tokens = prompts(4000, 44)
        keys = (tokens >= recall.description()["key_tokens"][0]) & (tokens <= recall.description()["key_tokens"][1])
        share = keys[:, :31].mean(0)  # a key may start at 0 .. 30 of a body of 32
        self.assertLess(np.abs(share[2:29] - 6 / 32).max(), 0.03)
        first_hidden = tokens[np.arange(4000), keys.argmax(1)]
        self.assertAlmostEqual((tokens[:, 32] == first_hidden).mean(), 1 / 6, delta=0.03)

    def test_a_seed_is_a_batch(self):
        self.assertTrue((prompts(3, 50) == prompts(3, 50)).all())
        self.assertFalse((prompts(3, 50) == prompts(3, 50, seed=4)).all())

    def test_shipped_models_say_the_same(self):
        described = [json.loads(path.read_text()) for path in NEEDLE.glob("weights/*/recall.json")]
        self.assertGreaterEqual(len(described), 2)
        for one in described:
            self.assertEqual(one, recall.description())
        self.assertEqual(len(set(recall.SYMBOLS)), len(recall.SYMBOLS))


if __name__ == "__main__":
    unittest.main(verbosity=2)
