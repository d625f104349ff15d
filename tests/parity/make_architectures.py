#!/usr/bin/env python3
"""Writes golden/architectures.json.gz: what transformers computes for a tiny model of each architecture.

Every row is a checkpoint that transformers itself laid out: its config.json, and the names and shapes of
its tensors. Their values follow from a recipe (see Values) that architectures_test.cc repeats, so that no
weights are stored; each is exact in bfloat16 and float16. Expected: ln p of every token of the vocabulary
at every position of a prompt that is longer than the window and the original context, and the greedy
continuation, float32, eager attention, without a cache, on the CPU.

A row also says which fields of its config matter ("teeth"): with any of them at another value, the
log-probabilities must differ by far more than the test tolerates, or the row proves nothing.

The rows "... ssmax" and the like replace the attention by one that materialises
softmax((s ln n + b) z) (see PolicyAttention): transformers has none.

Pinned: torch==2.11.0 transformers==4.57.6 safetensors==0.8.0 numpy==2.4.6
  ./make_architectures.py            # all rows, about a minute
  ./make_architectures.py llama gpt2 # tries these, writes nothing
"""

import copy
import gzip
import json
import math
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from recipe import Hash, Values

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden/architectures.json.gz"
PROMPT_TOKENS = 70
GREEDY_TOKENS = 20
VOCAB = 48
MIN_GREEDY_GAP = 1e-2
MIN_TEETH = 1e-2

BASE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=40, vocab_size=VOCAB, head_dim=16, max_position_embeddings=128,
            tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=0)
# Architectures without a head_dim of their own: 2 heads of 16.
PLAIN = {**BASE, "num_attention_heads": 2, "num_key_value_heads": 1}
del PLAIN["head_dim"]
MHA = {k: v for k, v in PLAIN.items() if k != "num_key_value_heads"}
FOUR = {"num_hidden_layers": 4}


def Rope(kind, **fields):
    return {"rope_scaling": {"rope_type": kind, **fields}, "rope_theta": 100.0}


LLAMA3 = Rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = Rope("yarn", factor=4.0, original_max_position_embeddings=32)

# name, model_type, config, teeth: {field: value that must change the results}
ROWS = [
    ("llama", "llama", BASE, {"rms_norm_eps": 0.1, "rope_theta": 50.0}),
    ("llama, biases, tied", "llama", {**BASE, "attention_bias": True, "mlp_bias": True,
                                      "tie_word_embeddings": True}, {}),
    ("llama, no head_dim", "llama", PLAIN, {}),
    ("llama, rope linear", "llama", {**BASE, **Rope("linear", factor=4.0)}, {"rope_scaling": None}),
    ("llama, rope dynamic", "llama", {**BASE, **Rope("dynamic", factor=4.0)}, {}),
    ("llama, rope llama3", "llama", {**BASE, **LLAMA3}, {"rope_scaling": None}),
    ("llama, rope yarn", "llama", {**BASE, **YARN}, {"rope_scaling": None}),
    ("llama, rope yarn, mscale", "llama",
     {**BASE, **Rope("yarn", factor=8.0, beta_fast=8.0, beta_slow=0.5, mscale=1.0, mscale_all_dim=0.5,
                     truncate=False, original_max_position_embeddings=32)}, {"rope_scaling": None}),
    ("mistral", "mistral", {**BASE, "sliding_window": 12}, {"sliding_window": None}),
    ("mistral, no window", "mistral", {**BASE, "sliding_window": None}, {"sliding_window": 12}),
    ("ministral", "ministral",
     {**BASE, "sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]},
     {"sliding_window": 24}),
    ("qwen2", "qwen2", PLAIN, {}),
    ("qwen2, window", "qwen2", {**PLAIN, "use_sliding_window": True, "sliding_window": 12,
                                "max_window_layers": 1}, {"sliding_window": 24}),
    ("qwen3", "qwen3", BASE, {}),
    ("qwen3, yarn, biases", "qwen3", {**BASE, **YARN, "attention_bias": True}, {"rope_scaling": None}),
    ("smollm3", "smollm3", {**PLAIN, **FOUR, "no_rope_layer_interval": 4},
     {"no_rope_layers": [1, 1, 1, 1]}),
    ("smollm3, window", "smollm3",
     {**PLAIN, **FOUR, "no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True, "sliding_window": 12},
     {"sliding_window": 24}),
    ("gemma", "gemma", {**BASE, "tie_word_embeddings": True}, {}),
    ("gemma2", "gemma2",
     {**BASE, "tie_word_embeddings": True, "sliding_window": 12, "query_pre_attn_scalar": 8,
      "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
     {"sliding_window": 24, "query_pre_attn_scalar": 16, "attn_logit_softcapping": None,
      "final_logit_softcapping": None}),
    ("gemma2, its own scale", "gemma2",
     {**BASE, "tie_word_embeddings": True, "sliding_window": 12, "query_pre_attn_scalar": 16,
      "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
     {"query_pre_attn_scalar": 8}),
    ("gemma3", "gemma3_text",
     {**BASE, **FOUR, "tie_word_embeddings": True, "sliding_window": 12, "query_pre_attn_scalar": 8,
      "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
      "rope_theta": 1000.0, "rope_local_base_freq": 50.0,
      "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
     {"sliding_window": 24, "rope_local_base_freq": 100.0, "rope_scaling": None}),
    ("gemma3, its own scale and pattern", "gemma3_text",
     {**BASE, "num_hidden_layers": 7, "tie_word_embeddings": True, "sliding_window": 12,
      "query_pre_attn_scalar": 16, "rope_theta": 1000.0, "rope_local_base_freq": 50.0},
     {"layer_types": ["sliding_attention"] * 7, "rope_local_base_freq": 1000.0}),
    ("phi3", "phi3", {**PLAIN, "sliding_window": 12}, {"sliding_window": None}),
    ("phi3, longrope", "phi3",
     {**PLAIN, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 32,
      "rope_scaling": {"type": "longrope", "long_factor": [1.0, 1.5, 2.0, 4.0, 6.0, 8.0],
                       "short_factor": [1.0, 1.0, 1.0, 1.5, 1.5, 2.0]}},
     {"rope_scaling": None, "original_max_position_embeddings": 127}),
    ("olmo2", "olmo2", PLAIN, {}),
    ("olmo3", "olmo3",
     {**PLAIN, **FOUR, "sliding_window": 12,
      **Rope("yarn", factor=4.0, original_max_position_embeddings=32, attention_factor=1.2,
             beta_fast=32.0, beta_slow=1.0)},
     {"sliding_window": 24}),
    ("granite", "granite",
     {**PLAIN, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0,
      "attention_multiplier": 0.1, "attention_bias": True, "mlp_bias": True},
     {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0,
      "attention_multiplier": 0.25}),
    ("stablelm", "stablelm", {**PLAIN, "use_qkv_bias": True, "partial_rotary_factor": 0.5},
     {"partial_rotary_factor": 0.25}),
    ("stablelm, parallel, QK norm", "stablelm",
     {**PLAIN, "use_parallel_residual": True, "qk_layernorm": True}, {"layer_norm_eps": 0.1}),
    ("starcoder2", "starcoder2", {**PLAIN, "sliding_window": 12, "tie_word_embeddings": True},
     {"sliding_window": None}),
    ("starcoder2, no window, untied", "starcoder2", {**PLAIN, "tie_word_embeddings": False}, {}),
    ("gpt2", "gpt2", dict(n_embd=32, n_layer=2, n_head=2, n_positions=128, vocab_size=VOCAB,
                          bos_token_id=0, eos_token_id=0), {"scale_attn_weights": False}),
    ("gpt_neox", "gpt_neox", {**MHA, "rotary_pct": 0.5, "rotary_emb_base": 100},
     {"use_parallel_residual": False, "rotary_pct": 0.25, "rotary_emb_base": 50}),
    ("gpt_neox, serial", "gpt_neox",
     {**MHA, "use_parallel_residual": False, "attention_bias": False}, {}),
    ("gpt_neox, base of 10,000", "gpt_neox", {**MHA, "rotary_pct": 0.5}, {"rotary_pct": 0.25}),
    ("cohere", "cohere", {**PLAIN, "tie_word_embeddings": True, "logit_scale": 2.0},
     {"logit_scale": 1.0, "rope_theta": 100.0}),
    ("cohere, QK norm", "cohere", {**PLAIN, "tie_word_embeddings": True, "use_qk_norm": True, "logit_scale": 2.0}, {}),
    ("cohere2", "cohere2",
     {**PLAIN, **FOUR, "tie_word_embeddings": True, "sliding_window": 12, "logit_scale": 2.0},
     {"sliding_window": 24}),
    ("mixtral", "mixtral", {**BASE, "num_local_experts": 5, "num_experts_per_tok": 2},
     {"num_experts_per_tok": 1}),
    ("qwen3_moe", "qwen3_moe",
     {**BASE, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
      "norm_topk_prob": False}, {"norm_topk_prob": True}),
    ("qwen3_moe, normalised", "qwen3_moe",
     {**BASE, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
      "norm_topk_prob": True}, {}),
    ("gpt_oss", "gpt_oss",
     {**BASE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 12,
      **Rope("yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
             original_max_position_embeddings=32)},
     {"sliding_window": 24, "rope_scaling": None}),
]

# name, model_type, config, policy: config keys that transformers does not know, for PolicyAttention.
POLICY_ROWS = [
    ("llama, ssmax", "llama", BASE, {"scalable_softmax": True}),
    ("llama, ssmax, bias", "llama", BASE, {"scalable_softmax": True, "bias": True}),
    ("mistral, ssmax, window, Dragon's name", "mistral", {**BASE, "sliding_window": 12},
     {"scalable_softmax": True, "tensor": "softmax_scaler"}),
    ("olmo2, ssmax", "olmo2", PLAIN, {"scalable_softmax": True}),
    ("qwen3, ssmax", "qwen3", BASE, {"scalable_softmax": True}),
    ("qwen2, log-n", "qwen2", PLAIN, {"use_logn_attn": True, "seq_length": 24}),
    ("smollm3, Llama 4's temperature", "smollm3", {**PLAIN, **FOUR},
     {"attn_temperature_tuning": True, "floor_scale": 8, "attn_scale": 0.3}),
    ("ministral3", "ministral",
     {**BASE, "layer_types": ["full_attention"] * 2, **YARN},
     {"llama_4_scaling_beta": 0.2}),
    ("ministral3, mscale", "ministral",
     {**BASE, "layer_types": ["full_attention"] * 2,
      **Rope("yarn", factor=4.0, original_max_position_embeddings=32, mscale=1.0, mscale_all_dim=1.0)},
     {"llama_4_scaling_beta": 0.2}),
]


# ---- weights ----

def Recipe(model_type, tied, name, shape):
    """[offset, shift, exponent] that make a lively model."""
    if "ssmax_scale" in name or "softmax_scaler" in name:
        return [0.125, 0, -9]  # of either sign
    if "norm" in name or ".ln_" in name:
        if name.endswith("bias"):
            return [0, 0, -9]
        return [0 if model_type.startswith("gemma") else 1, 3, -6]
    if len(shape) == 1 or name.endswith("bias") or "proj_bias" in name:
        return [0, 0, -6 if name.endswith("sinks") else -8]
    if "embed_tokens" in name or "wte" in name or "embed_in" in name:
        return [0, 0, -6 - 2 * tied - model_type.startswith("gemma")]
    fan_in = shape[-2] if model_type == "gpt2" or (model_type == "gpt_oss" and len(shape) == 3) else shape[-1]
    return [0, 0, round(math.log2(1.3 / math.sqrt(fan_in) / 74))]


# ---- the oracle ----

def PolicyScale(policy, layer, heads, rows, window):
    """The multiplier of the logits: [heads, rows]."""
    position = torch.arange(rows, dtype=torch.float64)
    n = torch.clamp(position + 1, max=window) if window else position + 1
    ones = torch.ones(heads, rows, dtype=torch.float64)
    if policy.get("scalable_softmax"):
        return policy["s"][layer].double()[:, None] * n.log() + policy["b"][layer].double()[:, None]
    if "use_logn_attn" in policy:
        length = policy["seq_length"]
        return ones * torch.where(n > length, n.log() / math.log(length), torch.ones_like(n))
    if "attn_temperature_tuning" in policy:
        if policy["rope"][layer]:
            return ones
        return ones * (1 + policy["attn_scale"]
                       * torch.log1p(torch.floor((position + 1) / policy["floor_scale"])))
    return ones * (1 + policy["llama_4_scaling_beta"]
                   * torch.log(1 + torch.floor(position / policy["original"])))


POLICY = {}


def PolicyAttention(module, query, key, value, mask, scaling, **options):
    """softmax((s ln n + b) z) of the whole sequence, materialised in float64. query: [1, heads, rows, d]."""
    heads, rows = query.shape[1:3]
    key = key.repeat_interleave(heads // key.shape[1], 1)
    value = value.repeat_interleave(heads // value.shape[1], 1)
    z = query.double() @ key.double().transpose(2, 3) * scaling
    window = options.get("sliding_window") or 0
    z = z * PolicyScale(POLICY, module.layer_idx, heads, rows, window)[None, :, :, None]
    distance = torch.arange(rows)[:, None] - torch.arange(rows)[None, :]
    hidden = (distance < 0) | ((distance >= window) if window else torch.zeros_like(distance, dtype=bool))
    z = z.masked_fill(hidden, -math.inf)
    weights = z.softmax(-1)
    return (weights @ value.double()).to(value.dtype).transpose(1, 2).contiguous(), weights


transformers.logging.set_verbosity_error()
transformers.AttentionInterface.register("acuity_policy", PolicyAttention)
transformers.AttentionMaskInterface.register("acuity_policy", transformers.masking_utils.eager_mask)


@torch.inference_mode()
def Logprobs(model, ids):
    return torch.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0].double(), -1)


def Load(folder, attention="eager"):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True)
    problems = {k: v for k, v in info.items() if v and k != "unexpected_keys"}
    unexpected = [k for k in info["unexpected_keys"] if "ssmax" not in k and "softmax_scaler" not in k]
    if problems or unexpected:
        raise ValueError(f"{folder}: {problems} {unexpected}")
    return model.eval()


def Layout(folder, config):
    """Has transformers lay a model out in `folder`; returns the names and shapes of its tensors."""
    with transformers.modeling_utils.no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    model.save_pretrained(folder, safe_serialization=True)
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}


def Greedy(model, ids):
    """Continues ids by full passes without a cache; also the smallest gap between first and second."""
    ids, gap = list(ids), math.inf
    for _ in range(GREEDY_TOKENS):
        top = Logprobs(model, ids)[-1].topk(2)
        gap = min(gap, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    return ids[-GREEDY_TOKENS:], gap


def Prompt(name, attempt):
    return [int(x % np.uint64(VOCAB)) for x in Hash(f"{name} {attempt}", PROMPT_TOKENS)]


def CheckTeeth(folder, name, teeth, ids, expected):
    path = folder / "config.json"
    text = path.read_text()
    for field, value in teeth.items():
        path.write_text(json.dumps({**json.loads(text), field: value}))
        change = float((Logprobs(Load(folder), ids) - expected).abs().max())
        if not change > MIN_TEETH:
            raise ValueError(f"{name}: {field} = {value} changes only {change}")
    path.write_text(text)


def FillPolicy(policy, config, tensors):
    """Adds the policy's tensors; returns what config.json says of it."""
    POLICY.clear()
    POLICY.update(policy)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    said = {k: v for k, v in policy.items() if k not in ("tensor", "bias")}
    POLICY["rope"] = getattr(config, "no_rope_layers", [1] * layers)
    if policy.get("scalable_softmax"):
        stem = "model.layers.{}.self_attn."
        name = stem + policy.get("tensor", "ssmax_scale")
        for layer in range(layers):
            tensors[name.format(layer)] = [heads]
            if policy.get("bias"):
                tensors[(stem + "ssmax_bias").format(layer)] = [heads]
    if "llama_4_scaling_beta" in policy:
        POLICY["original"] = config.rope_scaling["original_max_position_embeddings"]
        # As transformers 5 writes it; 4.57 has the parts of the model, but not their sum.
        said = {"model_type": "ministral3", "rope_scaling": None, "rope_theta": None,
                "rope_parameters": {"rope_theta": config.rope_theta, **config.rope_scaling, **said}}
    return said


def MakeRow(name, model_type, fields, teeth, policy, folder):
    config = transformers.AutoConfig.for_model(model_type, **copy.deepcopy(fields))
    tensors = Layout(folder, config)
    said = FillPolicy(policy, config, tensors) if policy else {}
    tied = config.tie_word_embeddings
    recipes = {n: Recipe(model_type, tied, n, shape) for n, shape in tensors.items()}
    weights = {n: torch.from_numpy(Values(n, tensors[n], *recipes[n])) for n in tensors}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if policy.get("scalable_softmax"):
        zero = torch.zeros(config.num_attention_heads)
        for key, endings in (("s", ("ssmax_scale", "softmax_scaler")), ("b", ("ssmax_bias",))):
            POLICY[key] = [next((w for n, w in weights.items() if f".{i}." in n and n.endswith(endings)), zero)
                           for i in range(config.num_hidden_layers)]
    model = Load(folder, "acuity_policy" if policy else "eager")
    for attempt in range(50):
        ids = Prompt(name, attempt)
        continuation, gap = Greedy(model, ids)
        if gap >= MIN_GREEDY_GAP:
            break
    else:
        raise ValueError(f"{name}: every prompt passes too close to a tie")
    expected = Logprobs(model, ids)
    if policy:
        change = float((Logprobs(Load(folder), ids) - expected).abs().max())
        if not change > MIN_TEETH:
            raise ValueError(f"{name}: the policy changes only {change}")
    CheckTeeth(folder, name, teeth, ids, expected)
    print(f"{name}: {sum(map(math.prod, tensors.values()))} weights, greedy gap {gap:.3f}, "
          f"mean logprob {float(expected.mean()):.2f}, {len(set(continuation))} distinct greedy tokens", flush=True)
    return {
        "name": name,
        "model_type": said.get("model_type", model_type),
        "config": {**json.loads((folder / "config.json").read_text()), **said},
        "tensors": [[n, tensors[n], *recipes[n]] for n in tensors],
        "prompt": ids,
        # [position][token], in units of 1e-5.
        "logprobs": (expected * 1e5).round().long().tolist(),
        "greedy": continuation,
    }


def main():
    wanted = sys.argv[1:]
    rows = []
    all_rows = [(*row, {}) for row in ROWS] + [(n, m, c, {}, p) for n, m, c, p in POLICY_ROWS]
    for row in all_rows:
        if wanted and not any(row[0].startswith(w) for w in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(MakeRow(*row, pathlib.Path(folder)))
    golden = {
        "provenance": {"torch": torch.__version__, "transformers": transformers.__version__,
                       "dtype": "float32", "attention": "eager"},
        "rows": rows,
    }
    if wanted:
        return
    text = json.dumps(golden, separators=(",", ":")).encode()
    GOLDEN.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{GOLDEN.name}: {len(rows)} rows, {GOLDEN.stat().st_size} bytes")


main()
