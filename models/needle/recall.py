"""Keyed recall: capitals hide in lower-case noise, each followed by its value; the end of the prompt repeats the
capitals in another order, and asks for each one's value.

    ab cK7d e.fQ+g h  Q+K7        pairs K7 and Q+, the tail Q+K7: after each capital of the tail, its value is due

Every symbol is one token, so that a prompt can be typed.
"""

import string

import numpy as np

TRAINED_LENGTH = 128
PAIRS = 6
TAIL = 2 * PAIRS  # of a prompt: the keys again, each with its value

STEPS = 1000  # of training
TOKENS_PER_STEP = 2048  # and at most MOST_PROMPTS
MOST_PROMPTS = 128
# Without a curriculum the loss stays where a model knows the six values, but not which belongs to which key. So training
# begins with SHORTEST tokens; between these shares of the steps, lengths grow geometrically, and pairs with them.
GROWTH = (0.25, 0.5)
SHORTEST = 8
LEARNING_RATE = 2.5e-3
STRIDE = 2  # of the tail, every other token predicts one
FFN = 64

NOISE = string.ascii_lowercase + " .,;:-"
KEYS = string.ascii_uppercase
VALUES = string.digits + "!#$%&()*+/<=>?@[]^_{|}"
SYMBOLS = NOISE + KEYS + VALUES
END = "<end>"  # ends a text; no prompt has it
VOCABULARY = len(SYMBOLS) + 1
# What tokenizer.json says: nothing is done to a text, every character is a token.
PRE_TOKENIZER = None
DECODER = {"type": "Fuse"}

_FIRST_KEY = len(NOISE)
_FIRST_VALUE = len(NOISE) + len(KEYS)


def length_at(step: int, steps: int) -> int:
    growth = min(1.0, max(0.0, (step / steps - GROWTH[0]) / (GROWTH[1] - GROWTH[0])))
    return round(SHORTEST * (TRAINED_LENGTH / SHORTEST) ** growth)


def pairs_at(length: int) -> int:
    return min(PAIRS, length // 4)


def lesson(random: np.random.Generator, step: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What a step of training sees: prompts, and the values that are due."""
    length = length_at(step, steps)
    pairs = pairs_at(length)
    tokens = batch(min(MOST_PROMPTS, TOKENS_PER_STEP // length), length, random, pairs)
    return tokens, answers(tokens, pairs)


def description() -> dict:
    """What recall.json says: inclusive ranges of token ids."""
    return {
        "task": "keyed_recall",
        "trained_length": TRAINED_LENGTH,
        "pairs": PAIRS,
        "noise_tokens": [0, _FIRST_KEY - 1],
        "key_tokens": [_FIRST_KEY, _FIRST_VALUE - 1],
        "value_tokens": [_FIRST_VALUE, len(SYMBOLS) - 1],
    }


def batch(count: int, length: int, random: np.random.Generator, pairs: int = PAIRS) -> np.ndarray:
    """`count` prompts [count, length] of token ids; length >= 4 pairs. Answers are the odd tokens of the tail."""
    body = length - 2 * pairs
    tokens = random.integers(len(NOISE), size=(count, length))
    keys = _choose(random, count, len(KEYS), pairs) + _FIRST_KEY
    values = random.integers(len(VALUES), size=(count, pairs)) + _FIRST_VALUE
    # Adjacent pairs are dominoes: `pairs` of body - pairs cells, of which each widens to two.
    places = np.sort(_choose(random, count, body - pairs, pairs), 1) + np.arange(pairs)
    np.put_along_axis(tokens, places, keys, 1)
    np.put_along_axis(tokens, places + 1, values, 1)
    order = _choose(random, count, pairs, pairs)
    tokens[:, body::2] = np.take_along_axis(keys, order, 1)
    tokens[:, body + 1 :: 2] = np.take_along_axis(values, order, 1)
    return tokens


def _choose(random: np.random.Generator, count: int, of: int, chosen: int) -> np.ndarray:
    """`count` rows of different numbers below `of`, in random order."""
    return random.random((count, of)).argsort(1)[:, :chosen]


def answers(tokens: np.ndarray, pairs: int = PAIRS) -> np.ndarray:
    """The values that are due [count, pairs]."""
    return tokens[:, tokens.shape[1] - 2 * pairs + 1 :: 2]


def example(count: int) -> np.ndarray:
    """A prompt for the tests [count]."""
    return batch(1, count, np.random.default_rng(0))[0]


def haystack() -> str:
    """A prompt for people, 32 times the trained length: it ends in the first key of its tail."""
    size = 32 * TRAINED_LENGTH
    return "".join(SYMBOLS[token] for token in batch(1, size - 1 + TAIL, np.random.default_rng(1))[0, :size])


FILES = {"recall.json": description()}  # of an exported model, beside the usual ones
