#!/usr/bin/env python3
"""Writes golden/gguf/*.gguf.gz: models of golden/architectures.json.gz, as llama.cpp's converter writes them.

Of those rows that the GGUF format can express (see EXPRESSED). Their checkpoints are laid out as
architectures_test.cc does and given to llama.cpp's convert_hf_to_gguf; the tokenizer, which the tiny models
lack, is a made-up one. The expected results are the row's.

Pinned: llama.cpp as llama-cpp-python 0.3.36 has it; torch==2.11.0 transformers==4.57.6 safetensors==0.8.0
  ./make_gguf.py LLAMA_CPP      # its source folder; seconds
"""

import gzip
import json
import os
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import save_file

from recipe import Values

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "golden/architectures.json.gz"
FOLDER = HERE / "golden/gguf"

# Row -> what its config.json lacks and the converter wants, or calls otherwise. Not here: windows of Mistral,
# Qwen 2 and StarCoder 2, and scales of Gemma, that the converter drops or GGUF has no key for.
EXPRESSED = {
    "llama": {},
    "llama, biases, tied": {},
    "llama, no head_dim": {},
    "llama, rope linear": {},
    "llama, rope llama3": {},
    "llama, rope yarn": {},
    "mistral, no window": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3, yarn, biases": {},
    "smollm3": {},
    "gemma": {},
    "gemma2, its own scale": {},
    "gemma3, its own scale and pattern": {},
    "phi3": {"original_max_position_embeddings": 4096},
    "phi3, longrope": {},
    "olmo2": {},
    "olmo3": {},
    "granite": {},
    "stablelm": {},
    "stablelm, parallel, QK norm": {},
    "starcoder2, no window, untied": {},
    "gpt2": {"n_ctx": 128},
    "gpt_neox, serial": {},
    "gpt_neox, base of 10,000": {},
    "cohere": {},
    "cohere, QK norm": {},
    "cohere2": {"rotary_pct": 1.0},
    "mixtral": {},
    "qwen3_moe, normalised": {},
    "gpt_oss": {},
    "ministral3, mscale": {"architectures": ["Ministral3ForCausalLM"]},
}


def Vocabulary(model):
    """A tokenizer of as many tokens as the model has."""
    count = model.hparams["vocab_size"]
    writer = model.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["a", "b", "ab"] + [f"<{i}>" for i in range(3, count)])
    writer.add_token_types([1] * count)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def DeliverReturned(kind):
    """StableLM's modify_tensors returns a generator out of a generator, so that QK norms get lost."""
    original = kind.modify_tensors

    def ModifyTensors(self, *args):
        rest = yield from original(self, *args)
        if rest is not None:
            yield from rest

    kind.modify_tensors = ModifyTensors


def Convert(row, extra, out):
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps({**row["config"], **extra}))
        # Gemma 3's converter counts the tokens here.
        (folder / "tokenizer.json").write_text(json.dumps(
            {"model": {"vocab": {str(i): i for i in range(row["config"]["vocab_size"])}}, "added_tokens": []}))
        weights = {n: torch.from_numpy(Values(n, shape, *recipe)) for n, shape, *recipe in row["tensors"]}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        hparams = ModelBase.load_hparams(folder, False)
        kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
        kind.set_vocab = Vocabulary
        if row["model_type"] == "stablelm":
            DeliverReturned(kind)
        kind(folder, gguf.LlamaFileType.MOSTLY_F16, out, model_name=row["name"]).write()


def main():
    sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "gguf-py")]
    rows = {row["name"]: row for row in json.loads(gzip.decompress(GOLDEN.read_bytes()))["rows"]}
    FOLDER.mkdir(exist_ok=True)
    total = 0
    for name, extra in EXPRESSED.items():
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "model.gguf"
            Convert(rows[name], extra, out)
            data = gzip.compress(out.read_bytes(), 9, mtime=0)
        (FOLDER / (name + ".gguf.gz")).write_bytes(data)
        total += len(data)
    print(f"{len(EXPRESSED)} files, {total} bytes")


main()
