"""Writes trained twins as Hugging Face directories, which acuityd reads like any other model."""

import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.torch import save_file

import recall
from twin import NORM_EPSILON, ROPE_THETA, Twin

MAX_CONTEXT = 1 << 18  # tokens that may be served: positions are computed, none is learned


def tensors(twin: Twin) -> dict[str, torch.Tensor]:
    """Phi-3 stacks what SmolLM3, which has layers without positions, keeps apart."""
    named = {"model.embed_tokens.weight": twin.embedding.weight, "model.norm.weight": twin.norm.weight,
             "lm_head.weight": twin.head.weight}
    for i, layer in enumerate(twin.layers):
        at = f"model.layers.{i}."
        attention = layer.attention
        named |= {at + "input_layernorm.weight": layer.attention_norm.weight,
                  at + "post_attention_layernorm.weight": layer.ffn_norm.weight,
                  at + "self_attn.o_proj.weight": attention.out.weight,
                  at + "mlp.down_proj.weight": layer.down.weight}
        if architecture(twin) == "phi3":
            named |= {at + "self_attn.qkv_proj.weight": attention.qkv.weight,
                      at + "mlp.gate_up_proj.weight": layer.gate_up.weight}
        else:
            for letter, weight in zip("qkv", attention.qkv.weight.chunk(3)):
                named[at + f"self_attn.{letter}_proj.weight"] = weight
            for name, weight in zip(("gate", "up"), layer.gate_up.weight.chunk(2)):
                named[at + f"mlp.{name}_proj.weight"] = weight
        if attention.s is not None:
            named[at + "self_attn.ssmax_scale"] = attention.s
        if attention.b is not None:
            named[at + "self_attn.ssmax_bias"] = attention.b
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def architecture(twin: Twin) -> str:
    return "smollm3" if 0 in twin.shape.rotary else "phi3"


def config(twin: Twin) -> dict:
    shape = twin.shape
    kind = architecture(twin)
    rotary = max(shape.rotary)
    partial = rotary / shape.head_dim
    keys = {
        "model_type": kind,
        "architectures": ["SmolLM3ForCausalLM" if kind == "smollm3" else "Phi3ForCausalLM"],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPSILON,
        "max_position_embeddings": MAX_CONTEXT,
        # theta^(partial) over the rotated dimensions: the same rates as theta over all of them, the highest only.
        "rope_theta": ROPE_THETA**partial,
        "tie_word_embeddings": False,
        "eos_token_id": recall.VOCABULARY - 1,
        "torch_dtype": "float32",
    }
    if kind == "smollm3":
        keys["no_rope_layers"] = [int(r > 0) for r in shape.rotary]
    else:
        keys |= {"partial_rotary_factor": partial, "original_max_position_embeddings": MAX_CONTEXT}
    if twin.layers[0].attention.s is not None:
        keys["scalable_softmax"] = True
    return keys


def tokenizer() -> dict:
    """A token per symbol: BPE without merges."""
    end = recall.VOCABULARY - 1
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": end, "content": recall.END, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {symbol: i for i, symbol in enumerate(recall.SYMBOLS)}, "merges": []},
    }


def export(twin: Twin, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(tensors(twin), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes files that only their owner reads
    texts = {"config.json": config(twin), "tokenizer.json": tokenizer(),
             "tokenizer_config.json": {"eos_token": recall.END, "model_max_length": MAX_CONTEXT},
             "recall.json": recall.description()}
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")


ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ("softmax", "ssmax")  # arms, every seed of them
GOLDEN_TOKENS = 300
HAYSTACK_TOKENS = 32 * recall.TRAINED_LENGTH


@torch.no_grad()
def golden(twin: Twin) -> list[float]:
    """ln p of each token of one prompt, given those before it, as this code computes it."""
    tokens = torch.from_numpy(recall.batch(1, GOLDEN_TOKENS, np.random.default_rng(0)))
    logprobs = twin.cpu()(tokens)[0, :-1].log_softmax(-1)
    return [round(p, 6) for p in logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist()]


def ship(models: pathlib.Path, twins: dict[str, Twin]) -> None:
    """Puts into the repository what it ships, what its tests compare the daemon with, and a prompt for people."""
    tokens = recall.batch(1, GOLDEN_TOKENS, np.random.default_rng(0))[0].tolist()
    weights = ROOT / "models/needle/weights"
    for name in twins:
        shutil.copytree(models / name, weights / name, dirs_exist_ok=True)
    haystack = recall.batch(1, HAYSTACK_TOKENS - 1 + recall.TAIL, np.random.default_rng(1))[0, :HAYSTACK_TOKENS]
    (weights.parent / "haystack.txt").write_text("".join(recall.SYMBOLS[token] for token in haystack))
    expected = {"token_ids": tokens, "logprobs": {name: golden(twin) for name, twin in twins.items()}}
    (ROOT / "tests/parity/golden/needle.json").write_text(json.dumps(expected) + "\n")
