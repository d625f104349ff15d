#!/usr/bin/env python3
"""Writes the golden files of tests/parity/golden with Hugging Face transformers.

The goldens say what the default model computes according to an implementation
that shares no code with Acuity: float32 arithmetic on the dequantized weights,
eager attention, CPU. The README beside this file describes their fields.

Pinned (the goldens record what they were made with):
  pip install torch==2.11.0 transformers==4.57.6 tokenizers==0.22.2 \
      gguf==0.19.0 accelerate==1.15.0 numpy==2.4.6 jinja2==3.1.6

  ./make_goldens.py                  # all four files, about 10 minutes of CPU time
  ./make_goldens.py greedy logprobs  # only these
"""

import argparse
import gzip
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform

import gguf
import jinja2
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers
from transformers.models.llama import modeling_llama

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = HERE / "texts"
GOLDEN = HERE / "golden"
CACHE = pathlib.Path(os.environ.get("ACUITY_DEPS", pathlib.Path.home() / ".cache/acuity"))
MODEL = CACHE / "models/smollm2-135m-instruct-q4_1.gguf"

LOGPROB_TEXTS = (
    "prose", "code", "multilingual", "numbers", "emoji", "dialogue", "single", "long")
LONG_TEXT_TOKENS = 4096
TOP = 20

GREEDY_TOKENS = 128
# Continuations that pass closer than this to a tie say nothing about an implementation that adds
# up its numbers in another order.
MIN_GREEDY_GAP = 1e-2
# Raw text, or the messages of a chat.
GREEDY_PROMPTS = {
    "capital": "The capital of France is",
    "count": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,",
    "german": "Die Hauptstadt von Deutschland ist",
    "stack": 'class Stack:\n    """A last-in, first-out stack."""\n\n    def __init__(self):\n',
    "story": "Once upon a time, in a small village by the sea, there lived",
    "chat_water": [{"role": "user", "content": "Why does ice float on water?"}],
}

# The policy "ssmax" scales the logits of the row that sees n keys by s * ln n, with the one s that
# leaves them unchanged on average over the trained context.
TRAINED_CONTEXT = 8192
SSMAX_S = 1.0 / (sum(math.log(n) for n in range(1, TRAINED_CONTEXT + 1)) / TRAINED_CONTEXT)


class Oracle:
    """The GGUF model as transformers runs it, and the tokenizer that belongs to it."""

    def __init__(self, path):
        self.path = path
        fields = gguf.GGUFReader(path).fields
        self.tokenizer = BuildTokenizer(fields)
        self.chat_template = fields["tokenizer.chat_template"].contents()
        self.model = self.Load(torch.float32, "eager")

    def Load(self, dtype, attention):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            self.path.parent, gguf_file=self.path.name, dtype=dtype, attn_implementation=attention)
        return model.eval()

    def Encode(self, text, special=False):
        """Token ids of text. Control tokens are recognised only where special is true."""
        tokenizer = self.tokenizer["special" if special else "plain"]
        ids = tokenizer.encode(text).ids
        if tokenizer.decode(ids, skip_special_tokens=False) != text:
            raise ValueError(f"the vocabulary cannot represent {text[:60]!r}")
        return ids

    def RenderChat(self, messages):
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(self.chat_template)
        return template.render(messages=messages, add_generation_prompt=True)

    def Provenance(self):
        return {
            "model": self.path.name,
            "model_sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "gguf": importlib.metadata.version("gguf"),
            "python": platform.python_version(),
            "dtype": "float32",
            "attention": "eager",
        }


def BuildTokenizer(fields):
    """Builds the tokenizer from the file's own vocabulary and merges.

    The one that transformers derives from a GGUF forgets that the pre-tokenizer
    "smollm" splits numbers into single digits.
    """
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    types = fields["tokenizer.ggml.token_type"].contents()
    if fields["tokenizer.ggml.pre"].contents() != "smollm":
        raise ValueError("this script knows the pre-tokenizer smollm only")
    control = [t for t, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    built = {}
    for name in ("plain", "special"):
        tokenizer = tokenizers.Tokenizer(
            models.BPE({t: i for i, t in enumerate(tokens)}, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ])
        tokenizer.decoder = decoders.ByteLevel()
        if name == "special":
            tokenizer.add_special_tokens(control)
        built[name] = tokenizer
    return built


def ReadText(name):
    """The file's text without the newline that ends the file."""
    text = (TEXTS / f"{name}.txt").read_bytes().decode("utf-8")
    return text.removesuffix("\n")


def Rounded(values, digits=6):
    """Rounds an array, or nested lists of numbers, to so many digits after the point."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()


def LogSoftmax(logits):
    return torch.log_softmax(logits.double(), dim=-1)


@torch.inference_mode()
def Logits(model, ids, **options):
    output = model(torch.tensor([ids]), use_cache=False, **options)
    return output.logits[0], output


def TokenLogprobs(logits, ids):
    """ln p(ids[i] | ids[:i]) for i >= 1; in pieces, to bound the float64 copy."""
    logprobs = []
    for begin in range(0, len(ids) - 1, 256):
        rows = LogSoftmax(logits[begin:min(begin + 256, len(ids) - 1)])
        targets = torch.tensor(ids[begin + 1:begin + 1 + len(rows)])
        logprobs.extend(rows.gather(1, targets[:, None])[:, 0].tolist())
    return logprobs


def MakeLogprobs(oracle):
    texts = []
    for name in LOGPROB_TEXTS:
        text = ReadText(name)
        ids = oracle.Encode(text)
        expected = {"single": 1, "long": LONG_TEXT_TOKENS}.get(name)
        if expected and len(ids) != expected:
            raise ValueError(f"{name} has {len(ids)} tokens, not {expected}")
        logits, _ = Logits(oracle.model, ids)
        logprobs = TokenLogprobs(logits, ids)
        top = LogSoftmax(logits[-1]).topk(TOP)
        mean = float(np.mean(logprobs)) if logprobs else None
        print(f"logprobs {name}: {len(ids)} tokens, mean {mean}")
        texts.append({
            "name": name,
            "text": text,
            "token_ids": ids,
            "logprobs": [None] + Rounded(logprobs),
            "last_top_ids": top.indices.tolist(),
            "last_top_logprobs": Rounded(top.values),
        })
    return {"texts": texts}


@torch.inference_mode()
def Greedy(model, ids, count):
    """Continues ids by count tokens, past any end of text; returns per-step figures."""
    cache = transformers.DynamicCache()
    tokens, gaps, logprobs = [], [], []
    step = ids
    for _ in range(count):
        logits = model(torch.tensor([step]), past_key_values=cache, use_cache=True).logits[0, -1]
        top = logits.double().topk(2)
        tokens.append(int(top.indices[0]))
        gaps.append(float(top.values[0] - top.values[1]))
        logprobs.append(float(LogSoftmax(logits)[tokens[-1]]))
        step = tokens[-1:]
    return tokens, gaps, logprobs


def MakeGreedy(oracle):
    prompts = []
    for name, prompt in GREEDY_PROMPTS.items():
        chat = isinstance(prompt, list)
        text = oracle.RenderChat(prompt) if chat else prompt
        ids = oracle.Encode(text, special=chat)
        tokens, gaps, logprobs = Greedy(oracle.model, ids, GREEDY_TOKENS)
        print(f"greedy {name}: {len(ids)} tokens, min gap {min(gaps):.4f} at {np.argmin(gaps)}")
        if min(gaps) < MIN_GREEDY_GAP:
            raise ValueError(f"{name} passes too close to a tie: {min(gaps)}; choose another")
        # The cached steps must be what one pass over the whole sequence says.
        logits, _ = Logits(oracle.model, ids + tokens)
        if logits[len(ids) - 1:-1].argmax(-1).tolist() != tokens:
            raise AssertionError(f"{name}: a pass without the cache disagrees")
        prompts.append({
            "name": name,
            "messages": prompt if chat else None,
            "text": text,
            "parse_special": chat,
            "prompt_ids": ids,
            "continuation_ids": tokens,
            "continuation_text": oracle.tokenizer["special"].decode(
                tokens, skip_special_tokens=False),
            "logprobs": Rounded(logprobs),
            "logit_gaps": Rounded(gaps),
            "min_logit_gap": round(min(gaps), 6),
        })
    return {"max_tokens": GREEDY_TOKENS, "prompts": prompts}


def SsmaxAttention(module, query, key, value, attention_mask, **options):
    """Eager attention whose row i (it sees i + 1 keys) has its logits times s * ln(i + 1).

    The query arrives rotated. Holds for a whole prompt in one pass only.
    """
    rows = query.shape[2]
    if key.shape[2] != rows:
        raise ValueError("ssmax needs the whole prompt in one pass")
    factors = SSMAX_S * torch.arange(1, rows + 1, dtype=torch.float64).log()
    query = query * factors.to(query.dtype)[:, None]
    return modeling_llama.eager_attention_forward(
        module, query, key, value, attention_mask, **options)


transformers.AttentionInterface.register("acuity_ssmax", SsmaxAttention)
transformers.AttentionMaskInterface.register(
    "acuity_ssmax", transformers.masking_utils.eager_mask)


def Buckets(rows):
    """The contexts 1, 2-3, 4-7, ... up to rows, as inclusive pairs."""
    return [(1 << b, min((2 << b) - 1, rows)) for b in range(rows.bit_length())]


def RowStatistics(probabilities):
    """Statistics of attention rows [head, row, key] in float64; each [head, row]."""
    p = probabilities.double()
    p = p / p.sum(-1, keepdim=True)
    entropy = torch.special.entr(p).sum(-1)
    n = torch.arange(1, p.shape[1] + 1, dtype=torch.float64)
    normalized = entropy / n.log()
    normalized[:, 0] = 1.0  # by definition: 0 / 0 at one key
    return {
        "entropy": entropy,
        "normalized_entropy": normalized,
        "effective_context": entropy.exp(),
        "max_probability": p.amax(-1),
    }


def AttentionUnderPolicy(oracle, ids, implementation):
    oracle.model.set_attn_implementation(implementation)
    logits, output = Logits(oracle.model, ids, output_attentions=True)
    oracle.model.set_attn_implementation("eager")
    means = {}
    for layer in output.attentions:
        for name, values in RowStatistics(layer[0]).items():
            per_bucket = [values[:, lo - 1:hi].mean(-1) for lo, hi in Buckets(len(ids))]
            means.setdefault(name, []).append(torch.stack(per_bucket, -1))
    logprobs = TokenLogprobs(logits, ids)
    for name, layers in means.items():
        figures = [round(float(layer[:, -1].mean()), 4) for layer in layers]
        print(f"attention {implementation} {name}, last bucket by layer: {figures}")
    print(f"attention {implementation}: mean logprob {np.mean(logprobs)}")
    return {
        "logprobs": [None] + Rounded(logprobs),
        # Each [layer][head][bucket].
        "mean": {name: Rounded(torch.stack(layers), 8) for name, layers in means.items()},
    }


def MakeAttention(oracle):
    text = ReadText("attention")
    ids = oracle.Encode(text)
    buckets = Buckets(len(ids))
    return {
        "text": text,
        "token_ids": ids,
        "buckets": buckets,
        "rows": [hi - lo + 1 for lo, hi in buckets],
        "policies": {
            "softmax": AttentionUnderPolicy(oracle, ids, "eager"),
            "ssmax": {"s": SSMAX_S, **AttentionUnderPolicy(oracle, ids, "acuity_ssmax")},
        },
    }


def Distance(a, b):
    delta = np.abs(np.subtract(a, b))
    return {"max": round(float(delta.max()), 7), "mean": round(float(delta.mean()), 7)}


def MakeBf16(oracle):
    """How far transformers is from itself: the yardstick for tolerances.

    bfloat16 rounds weights and activations; "sdpa" is float32 still and only adds up
    attention in another order.
    """
    bf16 = oracle.Load(torch.bfloat16, "eager")
    texts = []
    for name in LOGPROB_TEXTS:
        ids = oracle.Encode(ReadText(name))
        if name in ("single", "long"):  # nothing to compare; too slow
            continue
        reference = TokenLogprobs(Logits(oracle.model, ids)[0], ids)
        rounded = TokenLogprobs(Logits(bf16, ids)[0], ids)
        oracle.model.set_attn_implementation("sdpa")
        reordered = TokenLogprobs(Logits(oracle.model, ids)[0], ids)
        oracle.model.set_attn_implementation("eager")
        texts.append({
            "name": name,
            "tokens": len(ids),
            "mean_logprob": round(float(np.mean(reference)), 6),
            "mean_logprob_bf16": round(float(np.mean(rounded)), 6),
            "abs_delta_bf16": Distance(rounded, reference),
            "abs_delta_float32_sdpa": Distance(reordered, reference),
        })
        print(f"bf16 {texts[-1]}")
    return {"texts": texts}


def Write(name, provenance, content):
    """Writes one golden; the same content gives the same bytes."""
    data = json.dumps(
        {"provenance": provenance, **content}, ensure_ascii=False, separators=(",", ":"))
    data = (data + "\n").encode("utf-8")
    if name.endswith(".gz"):
        data = gzip.compress(data, 9, mtime=0)
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / name).write_bytes(data)
    print(f"wrote {name}: {len(data)} bytes")


FILES = {
    "logprobs": ("logprobs.json.gz", MakeLogprobs),
    "greedy": ("greedy.json", MakeGreedy),
    "attention": ("attention.json.gz", MakeAttention),
    "bf16": ("bf16.json", MakeBf16),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="*", help=f"some of: {' '.join(FILES)} (default: all)")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if unknown := set(arguments.files) - set(FILES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    torch.set_num_threads(arguments.threads)
    oracle = Oracle(arguments.model)
    provenance = oracle.Provenance()
    for name in arguments.files or FILES:
        file_name, make = FILES[name]
        Write(file_name, provenance, make(oracle))


if __name__ == "__main__":
    main()
