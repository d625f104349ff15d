"""Next-byte prediction on documentation that Debian carries: a small language model whose tokens are bytes.

scripts/train-needle takes the texts from their packages: Vim's help, its user manual held out.
"""

import functools
import os
import pathlib

import numpy as np

TRAINED_LENGTH = 128
SEQUENCES = 8  # of a step
STEPS = 1200
LEARNING_RATE = 8e-3
STRIDE = 1  # every token of a lesson predicts one
FFN = 128
END = "<end>"  # ends a text; no text has it
VOCABULARY = 257


def _spelling(byte: int) -> str:
    """GPT-2's alphabet: a printable character for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + sum(other not in printable for other in range(byte)))


SYMBOLS = [_spelling(byte) for byte in range(256)]
# What tokenizer.json says: any text is its bytes.
PRE_TOKENIZER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
DECODER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
FILES: dict[str, dict] = {}  # of an exported model, beside the usual ones


@functools.cache
def corpus() -> np.ndarray:
    """The training text [bytes]."""
    texts = pathlib.Path(os.environ.get("ACUITY_DEPS", pathlib.Path.home() / ".cache/acuity")) / "needle/texts"
    return np.frombuffer((texts / "train.txt").read_bytes(), dtype=np.uint8)


def lesson(random: np.random.Generator, step: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [SEQUENCES, TRAINED_LENGTH] from random places, and what follows each."""
    del step, steps  # all lessons are alike
    begins = random.integers(len(corpus()) - TRAINED_LENGTH, size=SEQUENCES)
    windows = corpus()[begins[:, None] + np.arange(TRAINED_LENGTH + 1)].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def example(count: int) -> np.ndarray:
    """Tokens for the tests [count]."""
    text = pathlib.Path(__file__).resolve().parents[2] / "tests/parity/texts/long.txt"
    return np.frombuffer(text.read_bytes()[:count], dtype=np.uint8).astype(np.int64)
