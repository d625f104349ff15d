#!/usr/bin/env python3
"""Writes golden/dequant.bin: random blocks of every tensor type, and what `gguf` makes of them.

    python3 -m venv VENV && VENV/bin/pip install gguf==0.19.0 numpy
    VENV/bin/python make_dequant_golden.py

Format, little-endian, until the end of the file, one record per type:
    uint32 type id (as in GGUF) | uint32 blocks | uint32 bytes per block | uint32 elements per block
    blocks * bytes per block bytes
    blocks * elements per block float32
"""
import pathlib
import struct

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize

# Where each block type keeps its float16 scales; everything else in a block may hold any bits.
SCALES = {
    Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0],
    Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208],
    Q.MXFP4: [],  # its scale is a byte of exponent
}
# Zeros, the least and greatest subnormals and normals, infinities.
HALF_CORNERS = [0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0xfbff,
                0x7c00, 0xfc00]
BFLOAT_CORNERS = [0x0000, 0x8000, 0x0001, 0x007f, 0x0080, 0x3f80, 0xbf80, 0x7f7f, 0xff7f, 0x7f80,
                  0xff80]


def random_halves(rng, count):
    """Finite float16 of the size that scales have, of both signs, some of them subnormal."""
    values = (rng.standard_normal(count) * 10.0 ** rng.uniform(-7, 1, count)).astype(np.float16)
    return values.view(np.uint8).reshape(count, 2)


def plain(rng, corners, infinity):
    bits = rng.integers(0, 1 << 16, 1024, dtype=np.uint16)
    bits = np.where((bits & infinity) == infinity, bits & ~np.uint16(infinity), bits)  # finite
    return np.concatenate([np.array(corners, np.uint16), bits]).view(np.uint8)


def blocks_of(rng, kind):
    elements, size = GGML_QUANT_SIZES[kind]
    if kind == Q.F32:
        return rng.standard_normal(256).astype(np.float32).view(np.uint8)
    if kind == Q.F16:
        return plain(rng, HALF_CORNERS, 0x7C00)
    if kind == Q.BF16:
        return plain(rng, BFLOAT_CORNERS, 0x7F80)
    count = 48 if elements == 32 else 8
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES[kind]:
        blocks[:, at : at + 2] = random_halves(rng, count)
    return blocks.reshape(-1)


def main():
    rng = np.random.default_rng(20250101)
    out = pathlib.Path(__file__).parent / "golden" / "dequant.bin"
    with out.open("wb") as file:
        for kind in [Q.F32, Q.F16, Q.BF16, *SCALES]:
            elements, size = GGML_QUANT_SIZES[kind]
            data = blocks_of(rng, kind)
            values = dequantize(data.view(np.float16) if kind == Q.F16 else
                                data.view(np.float32) if kind == Q.F32 else data, kind)
            values = np.ascontiguousarray(values, np.float32).reshape(-1)
            blocks = data.size // size
            assert values.size == blocks * elements
            file.write(struct.pack("<4I", int(kind), blocks, size, elements))
            file.write(data.tobytes())
            file.write(values.tobytes())
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
