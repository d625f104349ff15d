"""The trainer of models/needle: twins that differ in one thing, and training that goes on where it stopped."""

import contextlib
import io
import json
import math
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "models/needle"))

import recall  # noqa: E402
import text  # noqa: E402
import train  # noqa: E402
from twin import Shape, Twin  # noqa: E402

STEPS = 12


def tokens(length):
    return torch.randint(recall.VOCABULARY, (2, length), generator=torch.Generator().manual_seed(1))


class TwinTest(unittest.TestCase):
    def twin(self, **changes):
        torch.manual_seed(0)
        return Twin(Shape(recall.VOCABULARY, **changes))

    def test_the_tail_is_the_end_of_everything(self):
        twin = self.twin()
        twin.use_ssmax(0.4, bias=True)
        with torch.no_grad():
            whole, tail = twin(tokens(50)), twin(tokens(50), 12)
        self.assertLess((whole[:, -12:] - tail).abs().max(), 1e-5)

    def test_ssmax_is_softmax_of_scaled_logits(self):
        """One layer, written out: softmax over j <= i of (s ln(i + 1) + b) q_i.k_j / sqrt(d)."""
        twin = self.twin(layers=1, rotary=(0,))
        twin.use_ssmax(0.7, bias=True)
        attention = twin.layers[0].attention
        with torch.no_grad():
            attention.b.fill_(0.3)
            x = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(2))
            q, k, v = (attention.heads(part) for part in attention.qkv(x).chunk(3, -1))
            for i in range(9):
                z = q[:, :, i:i + 1] @ k[:, :, :i + 1].transpose(2, 3) / math.sqrt(32)
                p = ((0.7 * math.log(i + 1) + 0.3) * z).softmax(-1)
                wanted = attention.out((p @ v[:, :, :i + 1]).transpose(1, 2).flatten(2))
                self.assertLess((attention(x, 9)[:, i] - wanted[:, 0]).abs().max(), 1e-5)

    def test_twins_start_alike(self):
        runs = [train.Run(arm, 3, STEPS, "cpu").twin.state_dict() for arm in ("softmax", "ssmax", "ssmax-bias")]
        for name, tensor in runs[0].items():
            for other in runs[1:]:
                self.assertTrue(torch.equal(tensor, other[name]), name)


class TrainTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def test_resumed_is_the_same_to_the_bit(self):
        for arm, stop in (("ssmax-bias", 7), ("switched", 8), ("switched", 9), ("switched", 10)):  # it switches at 9
            whole, first = (train.Run(arm, 1, STEPS, "cpu") for _ in range(2))
            for _ in range(STEPS):
                whole.advance()
            for _ in range(stop):
                first.advance()
            first.save(self.folder / "run.pt", 1.5)
            rest = train.Run(arm, 1, STEPS, "cpu")
            self.assertEqual(rest.load(self.folder / "run.pt"), 1.5)
            while rest.step < STEPS:
                rest.advance()
            self.assertEqual(rest.losses, whole.losses)
            for name, tensor in whole.twin.state_dict().items():
                self.assertTrue(torch.equal(tensor, rest.twin.state_dict()[name]), name)

    def test_frozen_s_stays(self):
        run = train.Run("ssmax-one", 0, STEPS, "cpu")
        for _ in range(3):
            run.advance()
        self.assertTrue(all((layer.attention.s == 1).all() for layer in run.twin.layers))

    def test_learned_s_moves(self):
        run = train.Run("ssmax", 0, STEPS, "cpu")
        for _ in range(3):
            run.advance()
        self.assertTrue(all((layer.attention.s != train.AUTO_S).all() for layer in run.twin.layers))

    def test_auto_s(self):
        mean = sum(math.log(n) for n in range(1, 129)) / 128
        self.assertAlmostEqual(train.AUTO_S, 1 / mean, places=9)

    def test_lengths_grow_to_the_trained_one(self):
        lengths = [recall.length_at(step, 1000) for step in range(1000)]
        self.assertEqual((lengths[0], lengths[250], lengths[500], lengths[-1]), (8, 8, 128, 128))
        self.assertEqual(lengths, sorted(lengths))
        self.assertTrue(all(length >= 4 * recall.pairs_at(length) for length in lengths))

    def test_exports_what_it_trained_and_does_not_train_twice(self):
        for _ in range(2):
            run = train.train("ssmax-nope", 0, 2, self.folder, "cpu")
            self.assertEqual(run.step, 2)
        exported = self.folder / "models/ssmax-nope-0"
        config = json.loads((exported / "config.json").read_text())
        self.assertEqual((config["no_rope_layers"], config["scalable_softmax"]), ([1, 0], True))

    def test_another_number_of_steps_is_refused(self):
        train.train("softmax", 0, 2, self.folder, "cpu")
        with self.assertRaisesRegex(SystemExit, "of a run of 2 steps, not 3"):
            train.train("softmax", 0, 3, self.folder, "cpu")


class TextTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))
        corpus = np.frombuffer(b"abc" * 1000, dtype=np.uint8)
        self.enterContext(unittest.mock.patch.object(text, "corpus", lambda: corpus))

    def test_a_lesson_is_bytes_and_what_follows_them(self):
        tokens, due = text.lesson(np.random.default_rng(0), 0, 1)
        self.assertEqual(tokens.shape, (text.SEQUENCES, text.TRAINED_LENGTH))
        self.assertTrue((tokens[:, 1:] == due[:, :-1]).all())
        self.assertTrue(((tokens - 97 + 1) % 3 == due - 97).all())

    def test_every_byte_has_the_spelling_that_byte_level_tokenizers_give_it(self):
        self.assertEqual(len(set(text.SYMBOLS)), 256)
        self.assertEqual([text.SYMBOLS[b] for b in b"\x00\n !a~\x7f\xa0\xad\xff"],
                         list("\u0100\u010a\u0120!a~\u0121\u0142\u0143\u00ff"))

    def test_learns_and_exports(self):
        runs = {arm: train.train(arm, 0, 30, self.folder, "cpu") for arm in ("text-softmax", "text-ssmax")}
        for arm, run in runs.items():
            self.assertLess(run.losses[-1], 0.5 * run.losses[0], arm)
            config = json.loads((self.folder / f"models/{arm}-0/config.json").read_text())
            self.assertEqual((config["vocab_size"], config.get("scalable_softmax", False)), (257, arm == "text-ssmax"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main(verbosity=2)
