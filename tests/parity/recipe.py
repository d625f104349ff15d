"""The weights of the tiny models: what make_architectures.py and tiny_directory.cc both compute."""

import math

import numpy as np


def Hash(name, count):
    """`count` 64-bit integers: splitmix64 from the FNV-1a hash of the name on."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        x = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def Values(name, shape, offset, shift, exponent):
    """offset + (q >> shift) * 2^exponent; q is bell-shaped, -256 to 255, of standard deviation 74."""
    x = Hash(name, math.prod(shape))
    parts = sum((x >> np.uint64(16 * i) & np.uint64(0xFFFF)).astype(np.int64) for i in range(4))
    q = (parts - 2 * 65536) >> 9
    return (offset + (q >> shift) * 2.0**exponent).astype(np.float32).reshape(shape)
