"""`acuity calibrate`: a model whose trained length is taken to be 256 tokens, fitted to 512."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from harness import BIN, MODEL, ROOT, Daemon, acuity, acuityd, pb, temporary_file

TEXT = ROOT / "tests/parity/texts/long.txt"
TRAINED, CONTEXT = 256, 512


def calibrate(*arguments, model=MODEL, context=CONTEXT):
    return acuity("calibrate", str(model), "--to-context", str(context), *arguments)


def score(daemon, text, detail=pb.ATTENTION_DETAIL_HEADS):
    ids = daemon.tokenize(text)[:CONTEXT]
    return daemon.stub.Score(pb.ScoreRequest(
        model="smol", prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids)), attention=detail))


class CalibrateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.sidecar = pathlib.Path(cls.folder.name, "acuity.json")
        report = pathlib.Path(cls.folder.name, "report.json")
        # Held out: the same text from its middle on.
        held_out = temporary_file(TEXT.read_text()[8000:])
        cls.run = calibrate("--text", str(TEXT), "--held-out", held_out, "--trained-context",
                            str(TRAINED), "--out", str(cls.sidecar), "--report", str(report))
        os.remove(held_out)
        assert cls.run.returncode == 0, cls.run.stderr
        cls.report = json.loads(report.read_text())

    def per_head(self):
        """The first pass with a sharpening per head."""
        return next(p for p in self.report["calibration"] if p["name"].startswith("per head, "))

    def test_the_passes_and_the_choice(self):
        passes = self.report["calibration"]
        names = [p["name"] for p in passes]
        self.assertEqual(names[0], "as trained")
        self.assertIn("one global factor", names)
        self.assertEqual(len([name for name in names if name.startswith("per head, ")]), 2)
        best = min(passes, key=lambda p: p["loss_beyond"])
        self.assertEqual(self.report["chosen"], best["name"])
        self.assertEqual(json.loads(self.sidecar.read_text()), best["sidecar"])
        # Rows within the trained length are the same in every pass, to the bit.
        self.assertEqual({p["loss_within"] for p in passes}, {passes[0]["loss_within"]})
        bins = passes[0]["loss_by_position"]
        self.assertEqual((bins[0]["begin"], bins[-1]["end"]), (0, CONTEXT - 1))
        held = self.report["held_out"][0]["passes"]
        self.assertEqual(held[0]["name"], "as trained")
        self.assertEqual(held[-1]["name"], best["name"])
        self.assertIn("Held out", self.run.stdout)
        self.assertIn("per head, ", self.run.stdout)

    def test_heads_are_nearer_to_what_they_were_within(self):
        fitted = self.per_head()
        rope = fitted["sidecar"].get("rope")
        plain = next(p for p in self.report["calibration"]
                     if p["sidecar"].get("rope") == rope and "attention" not in p["sidecar"])
        gaps = {"plain": 0, "fitted": 0}
        for layer, row in enumerate(plain["entropy_nats"]):
            for head, entropy in enumerate(row):
                if fitted["sidecar"]["attention"]["s"][layer][head] == 0:
                    continue
                self.assertGreater(entropy["beyond"][0], entropy["within"])
                after = fitted["entropy_nats"][layer][head]
                self.assertEqual(after["within"], entropy["within"])
                gaps["plain"] += entropy["beyond"][0] - entropy["within"]
                gaps["fitted"] += abs(after["beyond"][0] - after["within"])
        self.assertGreater(gaps["plain"], 0)
        self.assertLess(gaps["fitted"], 0.9 * gaps["plain"])

    def test_the_daemon_serves_the_sidecar_and_short_contexts_are_left_alone(self):
        sidecar = self.per_head()["sidecar"]
        path = pathlib.Path(self.folder.name, "per_head.json")
        path.write_text(json.dumps(sidecar))
        flags = ["--max-context", "1024", "--kv-memory", "64MiB"]
        text = TEXT.read_text()[3000:]
        with Daemon(*flags) as daemon:
            plain = score(daemon, text)
        with Daemon(*flags, "--attention", f"smol=file:{path}") as daemon:
            fitted = score(daemon, text)
        self.assertIn("sharpen:length=256,", fitted.prompt_attention.layers[0].policy)
        # Row 255 sees 256 keys and predicts token 256.
        self.assertEqual(list(plain.logprobs[1:TRAINED + 1]), list(fitted.logprobs[1:TRAINED + 1]))
        self.assertNotEqual(list(plain.logprobs[TRAINED + 1:]), list(fitted.logprobs[TRAINED + 1:]))

    def test_a_sidecar_raises_the_context(self):
        path = pathlib.Path(self.folder.name, "longer.json")
        path.write_text('{"context": 8200}')
        flags = ["--model", f"smol={MODEL}", "--max-context", "8200", "--kv-memory", "200MiB",
                 "--listen", "127.0.0.1:0", "--metrics-listen", ""]
        refused = acuityd(*flags)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("max_context: 8200", refused.stderr)
        with Daemon("--max-context", "8200", "--kv-memory", "200MiB", "--attention",
                    f"smol=file:{path}") as daemon:
            self.assertEqual(daemon.stub.GetModel(pb.GetModelRequest(model="smol")).max_context,
                             8200)

    def test_goes_on_after_an_interrupt(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder.name))
        command = [str(BIN / "acuity"), "calibrate", str(MODEL), "--text", str(TEXT),
                   "--to-context", str(CONTEXT), "--trained-context", str(TRAINED), "--keep-rope",
                   "--out", f"{folder}/acuity.json", "--report", f"{folder}/report.json"]
        scores = folder / "report.json.scores"
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        end = time.time() + 120
        while not (scores.exists() and len(list(scores.iterdir())) >= 2) and time.time() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 130)
        first = sorted(scores.iterdir())[0]
        first.write_bytes(first.read_bytes()[:-100])  # damaged: made again
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertFalse(scores.exists())
        passes = json.loads((folder / "report.json").read_text())["calibration"]
        self.assertLess(min(p["seconds"] for p in passes[:2]), 0.5)
        self.assertEqual([p["loss_within"] for p in passes], [passes[0]["loss_within"]] * 4)

    def test_bad_input(self):
        text = ["--text", str(TEXT)]
        out = ["--out", str(pathlib.Path(self.folder.name, "unwritten.json"))]
        short = temporary_file("A short text.")
        dragon = pathlib.Path(self.folder.name, "no-such-model.gguf")
        folder = self.folder.name
        trained = ["--trained-context", "256"]
        for arguments, options, message in [
            (["--text", "/nonexistent", *trained], {}, "/nonexistent"),
            (["--text", short, *trained], {}, "tokens; to-context 512 needs as many"),
            (["--held-out", short, *text, *trained], {}, "tokens; to-context 512 needs as many"),
            (text, {}, "to-context: 512; above the trained context, 8192"),
            ([*text, *trained], {"context": 256}, "to-context: 256; above the trained context, 256"),
            (text, {"context": 2 << 20}, "1048576"),
            ([*text, "--trained-context", "9000"], {"context": 16384},
             "trained-context: 9000; from 2 to what the model says, 8192"),
            ([*text, "--trained-context", "1"], {}, "trained-context: 1; from 2"),
            ([*text, "--trained-context", "300"], {"context": 400},
             "to-context: 400; more than 512"),
            ([*text, *trained, "--daemon", "/nonexistent/acuityd"], {},
             "daemon: no program /nonexistent/acuityd"),
            ([*text, *trained, "--daemon", "/bin/false"], {}, "acuityd ended (exit code 1)"),
            ([*text, *trained, "--out", f"{folder}/none/acuity.json"], {}, "cannot write"),
            ([*text, *trained], {"model": dragon}, str(dragon)),
        ]:
            with self.subTest(message=message):
                run = calibrate(*(arguments if "--out" in arguments else [*arguments, *out]),
                                **options)
                self.assertEqual(run.returncode, 1, run.stderr)
                self.assertIn(message, run.stderr)
        self.assertEqual(calibrate().returncode, 2)
        os.remove(short)

    def test_an_interrupt_leaves_nothing_behind(self):
        folder = tempfile.mkdtemp(dir=self.folder.name)
        process = subprocess.Popen(
            [str(BIN / "acuity"), "calibrate", str(MODEL), "--text", str(TEXT), "--to-context",
             "4096", "--trained-context", "1024", "--out", f"{folder}/acuity.json"],
            stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": folder})
        end = time.time() + 60
        while not list(pathlib.Path(folder).glob("acuity-*/socket")) and time.time() < end:
            time.sleep(0.1)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        self.assertTrue(children)
        process.terminate()
        self.assertEqual(process.wait(60), 130)
        for child in children.split():
            self.assertFalse(pathlib.Path(f"/proc/{child}").exists())
        self.assertEqual(list(pathlib.Path(folder).glob("acuity-*")), [])


if __name__ == "__main__":
    unittest.main()
