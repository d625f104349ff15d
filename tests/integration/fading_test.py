"""The table of docs/ssmax.md through the daemon: a model whose attention logits are known, asked over gRPC for the largest
probability of its rows.

One layer, one head, no positions, two tokens. Whatever the row, a key of token 0 has the logit -2 and one of token 1 has 3.
A prompt of token 0 that ends in token 1 is the table's vector.
"""

import json
import math
import pathlib
import struct
import tempfile
import unittest

import numpy as np
from harness import Daemon, pb

S = 0.43
LOW, HIGH = -2.0, 3.0
WIDTH = 16  # of the hidden state and of the head: its square root is exact
# n, and what the table has of softmax and of SSMax.
TABLE = ((10, ".9428", ".9401"), (100, ".5999", ".9951"), (1000, ".1293", ".99965"), (10000, ".01463", ".99997"))
CONFIG = {
    "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "vocab_size": 3, "hidden_size": WIDTH,
    "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    "hidden_act": "silu", "rms_norm_eps": 1e-12, "max_position_embeddings": 16384, "rope_theta": 10000.0,
    "no_rope_layers": [0], "tie_word_embeddings": False, "eos_token_id": 2, "torch_dtype": "float32",
}
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": {"type": "Fuse"},
    "added_tokens": [{"id": 2, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
              "vocab": {"a": 0, "b": 1}, "merges": []},
}


def tensors():
    """The norm makes sqrt(WIDTH) of the one element that a token's embedding has: q.k / sqrt(WIDTH) is WIDTH / sqrt(WIDTH)
    times the product of the weights below."""
    def zeros(*shape):
        return np.zeros(shape, np.float32)

    embedding, q, k, head = zeros(3, WIDTH), zeros(WIDTH, WIDTH), zeros(WIDTH, WIDTH), zeros(3, WIDTH)
    embedding[range(3), range(3)] = math.sqrt(WIDTH)
    q[0, :3] = 1 / math.sqrt(WIDTH)
    k[0, :2] = LOW, HIGH
    head[1] = 1  # token 1 follows, whatever was before
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": embedding, "model.norm.weight": zeros(WIDTH) + 1, "lm_head.weight": head,
        layer + "input_layernorm.weight": zeros(WIDTH) + 1, layer + "post_attention_layernorm.weight": zeros(WIDTH) + 1,
        layer + "self_attn.q_proj.weight": q, layer + "self_attn.k_proj.weight": k,
        layer + "self_attn.v_proj.weight": zeros(WIDTH, WIDTH), layer + "self_attn.o_proj.weight": zeros(WIDTH, WIDTH),
        **{layer + f"mlp.{name}_proj.weight": zeros(WIDTH, WIDTH) for name in ("gate", "up", "down")},
    }


def write_model(folder, s=None):
    """s: the model's own, as a tensor; None: plain softmax."""
    folder.mkdir()
    named = tensors()
    if s is not None:
        named["model.layers.0.self_attn.ssmax_scale"] = np.array([s], np.float32)
    header, data = {}, b""
    for name, tensor in named.items():
        begin, data = len(data), data + tensor.tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    told = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + data)
    (folder / "config.json").write_text(json.dumps(CONFIG | ({} if s is None else {"scalable_softmax": True})))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))


def largest(n, multiplier):
    """The largest of n probabilities, by definition, in double precision."""
    return 1 / (1 + (n - 1) * math.exp(multiplier * (LOW - HIGH)))


class FadingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_model(cls.folder / "softmax")
        write_model(cls.folder / "ssmax", S)

    def daemon(self, dtype):
        """Softmax; SSMax of the model's own tensor; SSMax laid upon the softmax model."""
        return Daemon("--model", f"tensor={self.folder / 'ssmax'}", "--model", f"flag={self.folder / 'softmax'}",
                      "--attention", f"flag=ssmax:s={S}", "--dtype", dtype, "--kv-memory", "16MiB",
                      model="softmax", path=self.folder / "softmax")

    def check(self, daemon, model, n, wanted, shown):
        # The row of the prompt's last token, watched.
        scored = daemon.stub.Score(pb.ScoreRequest(
            model=model, prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[0] * (n - 1) + [1])),
            watch=[pb.TokenSpan(begin=n - 1, end=n)]), timeout=300)
        (head,) = scored.prompt_spans.layers[0].heads
        # The row of a generated token, in the attention report: the only one of its kind.
        request = daemon.request(ids=[0] * (n - 1), attention=pb.ATTENTION_DETAIL_HEADS, temperature=0, max_tokens=2)
        request.model = model
        messages = list(daemon.stub.Generate(request, timeout=300))
        self.assertEqual([i for m in messages for d in m.deltas for i in d.token_ids], [1, 1])
        (layer,) = messages[-1].result.generated_attention.layers
        (bucket,) = layer.heads[0].buckets
        self.assertEqual(bucket.rows, 1)
        self.assertTrue(bucket.n_min <= n <= bucket.n_max)
        for measured in (head.max_probability, head.mass[0], bucket.max_probability):
            self.assertAlmostEqual(measured, wanted, delta=2e-6 * wanted)
            self.assertAlmostEqual(measured, float(shown), delta=0.5 * 10 ** -(len(shown) - 1) + 2e-6)
        print(f"n {n}: {model} {bucket.max_probability:.6f}")

    def test_the_table(self):
        for dtype in ("float32", "bfloat16"):
            with self.daemon(dtype) as daemon:
                for n, softmax, ssmax in TABLE:
                    with self.subTest(dtype=dtype, n=n):
                        self.check(daemon, "softmax", n, largest(n, 1), softmax)
                        for model in ("tensor", "flag"):
                            self.check(daemon, model, n, largest(n, S * math.log(n)), ssmax)


if __name__ == "__main__":
    unittest.main(verbosity=2)
