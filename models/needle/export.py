"""Writes trained twins as Hugging Face directories, which acuityd reads like any other model."""

import json
import pathlib
import shutil
import types

import torch
from safetensors.torch import save_file

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


def config(twin: Twin, task: types.ModuleType) -> dict:
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
        "eos_token_id": task.VOCABULARY - 1,
        "torch_dtype": "float32",
    }
    if kind == "smollm3":
        keys["no_rope_layers"] = [int(r > 0) for r in shape.rotary]
    else:
        keys |= {"partial_rotary_factor": partial, "original_max_position_embeddings": MAX_CONTEXT}
    if twin.layers[0].attention.s is not None:
        keys["scalable_softmax"] = True
    return keys


def tokenizer(task: types.ModuleType) -> dict:
    """A token per symbol: BPE without merges."""
    end = task.VOCABULARY - 1
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": end, "content": task.END, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": task.PRE_TOKENIZER,
        "post_processor": None,
        "decoder": task.DECODER,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {symbol: i for i, symbol in enumerate(task.SYMBOLS)}, "merges": []},
    }


def export(twin: Twin, task: types.ModuleType, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(tensors(twin), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes files that only their owner reads
    texts = {"config.json": config(twin, task), "tokenizer.json": tokenizer(task),
             "tokenizer_config.json": {"eos_token": task.END, "model_max_length": MAX_CONTEXT}, **task.FILES}
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")


ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN_TOKENS = 300


def ships(arm: str, seed: int) -> bool:
    """Whether the repository ships it: every seed of the twins for recall, one of those for text."""
    return arm in ("softmax", "ssmax") or (arm in ("text-softmax", "text-ssmax") and seed == 0)


@torch.no_grad()
def golden(twin: Twin, task: types.ModuleType) -> list[float]:
    """ln p of each token of the task's example, given those before it, as this code computes it."""
    tokens = torch.from_numpy(task.example(GOLDEN_TOKENS)[None])
    logprobs = twin.cpu()(tokens)[0, :-1].log_softmax(-1)
    return [round(p, 6) for p in logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist()]


def ship(models: pathlib.Path, name: str, twin: Twin, task: types.ModuleType) -> None:
    """Puts a model into the repository, and what the tests compare the daemon with."""
    shutil.copytree(models / name, ROOT / "models/needle/weights" / name, dirs_exist_ok=True)
    path = ROOT / "tests/parity/golden/needle.json"
    expected = json.loads(path.read_text())
    of_task = expected.setdefault(task.__name__, {"logprobs": {}})
    of_task["token_ids"] = task.example(GOLDEN_TOKENS).tolist()
    of_task["logprobs"][name] = golden(twin, task)
    path.write_text(json.dumps(expected) + "\n")
