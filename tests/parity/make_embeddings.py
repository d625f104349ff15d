#!/usr/bin/env python3
"""Writes golden/embeddings.json.gz: the final hidden states of models of golden/architectures.json.gz.

What transformers' base model returns for the row's prompt (after the last norm), float32, eager attention.

Pinned: as make_architectures.py
  ./make_embeddings.py      # seconds
"""

import gzip
import json
import pathlib
import tempfile

import torch
import transformers
from safetensors.torch import save_file

from recipe import Values

HERE = pathlib.Path(__file__).resolve().parent / "golden"
# One of each kind of final norm and residual stream.
ROWS = ["llama", "gemma2", "olmo2", "granite", "gpt2", "gpt_neox", "cohere", "qwen3_moe", "gpt_oss"]


@torch.inference_mode()
def Hidden(row):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(row["config"]))
        weights = {n: torch.from_numpy(Values(n, shape, *recipe)) for n, shape, *recipe in row["tensors"]}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        return model.base_model(torch.tensor([row["prompt"]]), use_cache=False).last_hidden_state[0]


def main():
    rows = {row["name"]: row for row in json.loads(gzip.decompress((HERE / "architectures.json.gz").read_bytes()))["rows"]}
    golden = {
        "provenance": {"torch": torch.__version__, "transformers": transformers.__version__},
        # name -> [position][dimension], in units of 1e-6
        "hidden": {name: (Hidden(rows[name]).double() * 1e6).round().long().tolist() for name in ROWS},
    }
    text = json.dumps(golden, separators=(",", ":")).encode()
    (HERE / "embeddings.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


main()
