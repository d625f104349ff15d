#!/usr/bin/env python3
"""Writes golden/types.safetensors: tensors of every type that torch has, and what torch makes of them.

    python3 -m venv VENV && VENV/bin/pip install safetensors==0.8.0 torch==2.11.0 numpy
    VENV/bin/python make_safetensors_golden.py

For each type that is read as float there is X (elements) and X.float32 (their values); of F16 and BF16, whose 65,536
elements are those of their codes in order, only X.checksum: the sum over the codes of (2 code + 1) times the bits of
the value modulo 2^64, every NaN counting as 0x7fc00000.
"""
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

SMALL = {"f8_e4m3": torch.float8_e4m3fn, "f8_e5m2": torch.float8_e5m2}
HALVES = {"f16": torch.float16, "bf16": torch.bfloat16}
OTHERS = {"bool": torch.bool, "u8": torch.uint8, "i8": torch.int8, "i16": torch.int16, "u16": torch.uint16,
          "i32": torch.int32, "u32": torch.uint32, "i64": torch.int64, "u64": torch.uint64,
          "f8_e8m0": torch.float8_e8m0fnu, "c64": torch.complex64}
# Beyond float32, at its limits, halfway between two floats, subnormal there, and nothing.
DOUBLES = [0.0, -0.0, 1.0, 1e300, -1e300, 3.4028235677973366e38, 3.4028235677973362e38, 1.0 + 2.0 ** -24,
           1.0 + 3 * 2.0 ** -24, 1e-40, 2.0 ** -149, 2.0 ** -150, 1.5 * 2.0 ** -150, 5e-324, np.inf, -np.inf]


def checksum(values):
    bits = np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32)).astype(np.uint64)
    with np.errstate(over="ignore"):
        return int(((2 * np.arange(len(bits), dtype=np.uint64) + 1) * bits).sum(dtype=np.uint64))


def main():
    tensors = {}
    for name, dtype in SMALL.items():
        tensors[name] = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(dtype)
        tensors[name + ".float32"] = tensors[name].to(torch.float32)
    for name, dtype in HALVES.items():
        codes = torch.from_numpy(np.arange(65536, dtype=np.uint16)).view(dtype)
        value = checksum(codes.to(torch.float32).numpy())
        tensors[name + ".checksum"] = torch.from_numpy(np.array([value], np.uint64))
        tensors[name] = codes[0x3C00:0x3C06].reshape(2, 3).clone()
    rng = np.random.default_rng(1)
    doubles = np.concatenate([DOUBLES, rng.standard_normal(256) * 10.0 ** rng.uniform(-50, 40, 256)])
    tensors["f64"] = torch.from_numpy(doubles).reshape(2, 8, 17)
    with np.errstate(over="ignore"):
        tensors["f64.float32"] = tensors["f64"].to(torch.float32)
    for name, dtype in OTHERS.items():
        tensors[name] = torch.zeros(3, 1, dtype=dtype)
    tensors["empty"] = torch.zeros(2, 0, 3)
    tensors["scalar"] = torch.tensor(1.5)
    folder = pathlib.Path(__file__).parent / "golden"
    save_file(tensors, folder / "types.safetensors", metadata={"format": "pt", "note": "\u00fc\"\n"})


if __name__ == "__main__":
    main()
