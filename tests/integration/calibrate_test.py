"""`acuity calibrate` on a small model of random weights, trained to "256" tokens and fitted to 512."""

import array
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import tempfile
import time
import unittest

from harness import BIN, ROOT, Daemon, acuity, acuityd, pb, temporary_file

TEXT = ROOT / "tests/parity/texts/long.txt"
TRAINED, CONTEXT = 256, 512


def write_model(folder):
    """A Llama of 2 layers on bytes. Its logits deviate by about 2, so that heads can be sharpened."""
    hidden, heads, ffn, layers = 64, 4, 128, 2
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn,
              "num_key_value_heads": heads, "vocab_size": 256, "rms_norm_eps": 1e-5,
              "max_position_embeddings": TRAINED, "rope_theta": 10000.0, "hidden_act": "silu",
              "tie_word_embeddings": True, "torch_dtype": "float32"}
    printable = [b for b in range(256) if chr(b).isprintable() and b not in (32, 0xa0, 0xad)]
    others = iter(range(256, 512))
    vocab = {chr(b) if b in printable else chr(next(others)): b for b in range(256)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
                 "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
                 "decoder": byte_level,
                 "model": {"type": "BPE", "dropout": None, "unk_token": None,
                           "continuing_subword_prefix": None, "end_of_word_suffix": None,
                           "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}
    tensors = {"model.embed_tokens.weight": ([256, hidden], 1), "model.norm.weight": ([hidden], 0)}
    for i in range(layers):
        name = f"model.layers.{i}."
        for part, shape, deviation in [
                ("input_layernorm", [hidden], 0), ("post_attention_layernorm", [hidden], 0),
                ("self_attn.q_proj", [hidden, hidden], 0.18),
                ("self_attn.k_proj", [hidden, hidden], 0.18),
                ("self_attn.v_proj", [hidden, hidden], 0.1),
                ("self_attn.o_proj", [hidden, hidden], 0.1),
                ("mlp.gate_proj", [ffn, hidden], 0.1), ("mlp.up_proj", [ffn, hidden], 0.1),
                ("mlp.down_proj", [hidden, ffn], 0.1)]:
            tensors[f"{name}{part}.weight"] = (shape, deviation)
    rng = random.Random(5)
    header, data = {}, b""
    for name, (shape, deviation) in tensors.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = array.array("f", (rng.gauss(0 if deviation else 1, deviation)
                                   for _ in range(count))).tobytes()
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


class TinyDaemon(Daemon):
    def __init__(self, model, *flags):
        super().__init__("--kv-memory", "16MiB", *flags)
        self.arguments[2] = f"{self.model}={model}"


def score(daemon, text):
    ids = daemon.tokenize(text)[:CONTEXT]
    return daemon.stub.Score(pb.ScoreRequest(
        model="smol", prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids)),
        attention=pb.ATTENTION_DETAIL_HEADS))


class CalibrateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = pathlib.Path(cls.folder.name, "model")
        cls.model.mkdir()
        write_model(cls.model)
        cls.sidecar = pathlib.Path(cls.folder.name, "acuity.json")
        report = pathlib.Path(cls.folder.name, "report.json")
        # Held out: the same text from its middle on.
        held_out = temporary_file(TEXT.read_text()[8000:])
        cls.completed = cls.calibrate("--text", str(TEXT), "--held-out", held_out, "--out",
                                str(cls.sidecar), "--report", str(report))
        os.remove(held_out)
        assert cls.completed.returncode == 0, cls.completed.stderr
        cls.report = json.loads(report.read_text())

    @classmethod
    def calibrate(cls, *arguments, model=None, context=CONTEXT):
        return acuity("calibrate", str(model or cls.model), "--to-context", str(context),
                      *arguments)

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
        self.assertIn("Held out", self.completed.stdout)
        self.assertIn("per head, ", self.completed.stdout)

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
        longer = pathlib.Path(self.folder.name, "longer.json")
        longer.write_text(json.dumps({"context": CONTEXT}))
        text = TEXT.read_text()[3000:]
        with TinyDaemon(self.model, "--attention", f"smol=file:{longer}") as daemon:
            plain = score(daemon, text)
        with TinyDaemon(self.model, "--attention", f"smol=file:{path}") as daemon:
            fitted = score(daemon, text)
        self.assertIn("sharpen:length=256,", fitted.prompt_attention.layers[0].policy)
        # Row 255 sees 256 keys and predicts token 256.
        self.assertEqual(list(plain.logprobs[1:TRAINED + 1]), list(fitted.logprobs[1:TRAINED + 1]))
        self.assertNotEqual(list(plain.logprobs[TRAINED + 1:]), list(fitted.logprobs[TRAINED + 1:]))

    def test_a_sidecar_raises_the_context(self):
        path = pathlib.Path(self.folder.name, "longest.json")
        path.write_text('{"context": 300}')
        refused = acuityd("--model", f"smol={self.model}", "--max-context", "300", "--listen",
                          "127.0.0.1:0", "--metrics-listen", "")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("max_context: 300", refused.stderr)
        with TinyDaemon(self.model, "--attention", f"smol=file:{path}") as daemon:
            self.assertEqual(daemon.stub.GetModel(pb.GetModelRequest(model="smol")).max_context,
                             300)

    def test_goes_on_after_an_interrupt(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder.name))
        command = [str(BIN / "acuity"), "calibrate", str(self.model), "--text", str(TEXT),
                   "--to-context", str(CONTEXT), "--keep-rope", "--out", f"{folder}/acuity.json",
                   "--report", f"{folder}/report.json"]
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
        self.assertLess(passes[0]["seconds"] + passes[1]["seconds"],
                        passes[2]["seconds"] + passes[3]["seconds"])
        self.assertEqual([p["loss_within"] for p in passes], [passes[0]["loss_within"]] * 4)

    def test_bad_input(self):
        text = ["--text", str(TEXT)]
        out = ["--out", str(pathlib.Path(self.folder.name, "unwritten.json"))]
        short = temporary_file("A short text.")
        missing = pathlib.Path(self.folder.name, "no-such-model.gguf")
        ssmax = pathlib.Path(self.folder.name, "logn")
        ssmax.mkdir()
        for file in self.model.iterdir():
            (ssmax / file.name).write_bytes(file.read_bytes())
        config = json.loads((ssmax / "config.json").read_text())
        config.update(use_logn_attn=True, seq_length=TRAINED)
        (ssmax / "config.json").write_text(json.dumps(config))
        for arguments, options, message in [
            (["--text", "/nonexistent"], {}, "/nonexistent"),
            (["--text", short], {}, "it has 13 tokens; to-context 512 needs as many"),
            (["--held-out", short, *text], {}, "tokens; to-context 512 needs as many"),
            (text, {"context": 256}, "to-context: 256; above the trained context, 256"),
            (text, {"context": -1}, "to-context: -1; above the trained context, 256"),
            (text, {"context": 2 << 20}, "'context' must be a whole number from 256 to 1048576"),
            ([*text, "--trained-context", "300"], {},
             "trained-context: 300; from 2 to what the model says, 256"),
            ([*text, "--trained-context", "1"], {}, "trained-context: 1; from 2"),
            ([*text, "--trained-context", "200"], {"context": 250},
             "to-context: 250; more than 256"),
            ([*text, "--daemon", "/nonexistent/acuityd"], {},
             "daemon: no program /nonexistent/acuityd"),
            ([*text, "--daemon", "/bin/false"], {}, "acuityd ended (exit code 1)"),
            ([*text, "--out", f"{self.folder.name}/none/acuity.json"], {}, "cannot write"),
            (text, {"model": missing}, str(missing)),
            (text, {"model": ssmax}, "it has an attention policy of its own, logn:256"),
        ]:
            with self.subTest(message=message):
                run = self.calibrate(
                    *(arguments if "--out" in arguments else [*arguments, *out]), **options)
                self.assertEqual(run.returncode, 1, run.stderr)
                self.assertIn(message, run.stderr)
        self.assertEqual(self.calibrate().returncode, 2)
        os.remove(short)

    def test_an_interrupt_leaves_nothing_behind(self):
        folder = tempfile.mkdtemp(dir=self.folder.name)
        process = subprocess.Popen(
            [str(BIN / "acuity"), "calibrate", str(self.model), "--text", str(TEXT),
             "--to-context", "16384", "--out", f"{folder}/acuity.json"],
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


class ShippedSidecarTest(unittest.TestCase):
    def test_smollm2_serves_twice_its_context_and_scores_the_same_within(self):
        scores = []
        for flags in ((), ("--attention", f"smol=file:{ROOT}/models/smollm2-16k/acuity.json")):
            with Daemon("--kv-memory", "512MiB", *flags) as daemon:
                model = daemon.stub.GetModel(pb.GetModelRequest(model="smol"))
                ids = daemon.tokenize(TEXT.read_text())[:300]
                scored = daemon.stub.Score(pb.ScoreRequest(
                    model="smol", prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids))))
                scores.append(list(scored.logprobs[1:]))
        self.assertEqual(model.max_context, 16384)
        self.assertRegex(model.attention_policy, "^sharpen:length=8192,")
        self.assertEqual(scores[0], scores[1])  # to the bit


if __name__ == "__main__":
    unittest.main()
