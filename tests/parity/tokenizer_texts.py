"""Strings for the tokenizer tests: from fixed seeds, Unicode's tables, the source text of Python's
standard library and this folder's prose."""

import pathlib
import random
import unicodedata

HERE = pathlib.Path(__file__).parent

WORDS = [
    "'s", "'T", "'ll", "'ſ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u180e", "\u00a0",
    "\u3000", "1234567", "٣٤٥", "½", "²", "Ⅷ", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "e\u0301", "ﬁ", "Å", "q\u0323\u0307",
    "don't", "DON'T", "_x", "C++20", "日本語", "がぎぐ", "한국어", "हिन्दी", "עִבְרִית", "العربية", "ไทย",
    "camelCase", "HTTPServer", "x/y/z//", "▁", "▁▁", "▁a", "<", "|", ">", "endoftext", "\x00",
    "\x1b[31m", "\x7f", "\ufeff", "\u200d", "\u2028", "\x85", "Ｆｕｌｌ", "①", "㎏",
]  # fmt: skip


def alphabets():
    """Characters by block of 256 and by category. Code points that this Python's Unicode does not
    assign are left out: whether they are letters depends on each engine's Unicode version."""
    blocks, categories = {}, {}
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category in ("Cs", "Cn"):
            continue
        if category != "Co":
            blocks.setdefault(code >> 8, []).append(chr(code))
        categories.setdefault(category, []).append(chr(code))
    return list(blocks.values()), list(categories.values())


def library_text():
    folder = pathlib.Path(random.__file__).parent
    files = sorted(folder.glob("*.py")) + sorted((HERE / "texts").glob("*.txt"))
    return [p.read_text("utf-8", "replace") for p in files]


def make_strings(special, count, seed=20240229):
    """`count` different strings; `special` are spellings of control tokens to mix in."""
    rng = random.Random(seed)
    blocks, categories = alphabets()
    library = library_text()
    words = WORDS + list(special)
    strings = ["", " ", "  ", "\n", "a", " a", "a ", "\u180e a", *special]
    seen = set(strings)

    def block_text():
        alphabet = rng.choice(blocks)
        spaces = [" "] * (1 + len(alphabet) // 6)
        return "".join(rng.choices(alphabet + spaces, k=rng.randrange(1, 60)))

    def category_text():
        return "".join(rng.choice(rng.choice(categories)) for _ in range(rng.randrange(1, 60)))

    def excerpt():
        text = rng.choice(library)
        begin = rng.randrange(max(1, len(text) - 50))
        return text[begin : begin + rng.randrange(1, 400)]

    def word_text():
        return "".join(rng.choice(words) for _ in range(rng.randrange(1, 25)))

    def run():
        return rng.choice(rng.choice(categories)) * rng.randrange(1, 300) + rng.choice(words)

    def damaged_excerpt():
        part = list(excerpt()[:80])
        for _ in range(10):
            part.insert(rng.randrange(len(part) + 1), rng.choice(rng.choice(blocks)))
        return "".join(part)

    makers = [block_text, category_text, excerpt, word_text, run, damaged_excerpt]
    while len(strings) < count:
        string = makers[len(strings) % len(makers)]()
        if string in seen:
            string += rng.choice(words)
        if string not in seen:
            seen.add(string)
            strings.append(string)
    return strings
