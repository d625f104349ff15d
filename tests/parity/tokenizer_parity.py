"""Tokenizer against Hugging Face's, id for id and byte for byte.

Usage: tokenizer_parity.py TOKENIZER_DUMP MODEL.gguf

The oracle is built from the file's own vocabulary and merges, because what transformers derives
from a GGUF loses the digit split. Strings are made from fixed seeds, Unicode's tables and the
source text of Python's standard library. Prints counts; exits 1 if anything differs.
"""

import pathlib
import random
import struct
import subprocess
import sys
import time
import unicodedata

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = 3  # token type


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


PRE_TOKENIZERS = {
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": split(GPT4 % "{1,3}"),
    "qwen2": split(GPT4 % ""),
}


class Vocabulary:
    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields
        self.tokens = fields["tokenizer.ggml.tokens"].contents()
        self.types = fields["tokenizer.ggml.token_type"].contents()
        merges = fields["tokenizer.ggml.merges"].contents()
        # The byte-level alphabet has no space: the one in a merge is the separator.
        self.merges = [tuple(merge.split(" ", 1)) for merge in merges]
        self.control = [t for t, kind in zip(self.tokens, self.types) if kind == CONTROL]

    def oracle(self, name, parse_special):
        ids = {token: i for i, token in enumerate(self.tokens)}
        bpe = models.BPE(vocab=ids, merges=self.merges, ignore_merges=name == "llama-bpe")
        tokenizer = Tokenizer(bpe)
        tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
        tokenizer.decoder = decoders.ByteLevel()
        if parse_special:
            tokenizer.add_special_tokens(
                [AddedToken(t, special=True, normalized=False) for t in self.control]
            )
        return tokenizer


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
    return [p.read_text("utf-8", "replace") for p in sorted(folder.glob("*.py"))]


def make_strings(control, count):
    rng = random.Random(20240229)
    blocks, categories = alphabets()
    library = library_text()
    words = [
        "'s",
        "'T",
        "'ll",
        "'ſ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u180e",
        "\u00a0",
        "\u3000",
        "1234567",
        "٣٤٥",
        "½",
        "²",
        "Ⅷ",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🇩🇪",
        "e\u0301",
        "ﬁ",
        "don't",
        "DON'T",
        "_x",
        "C++20",
        "日本語",
        "हिन्दी",
        "עִבְרִית",
        "\x00",
        "\x1b[31m",
        "\x7f",
        "\ufeff",
        "\u200d",
        "\u2028",
        "\x85",
        "<",
        "|",
        ">",
        "endoftext",
    ] + control
    strings = ["", " ", "\n", "a", "\u180e a", *control]
    while len(strings) < count:
        kind = len(strings) % 6
        if kind == 0:
            alphabet = rng.choice(blocks)
            strings.append(
                "".join(
                    rng.choices(alphabet + [" "] * (1 + len(alphabet) // 6), k=rng.randrange(1, 60))
                )
            )
        elif kind == 1:
            strings.append(
                "".join(rng.choice(rng.choice(categories)) for _ in range(rng.randrange(1, 60)))
            )
        elif kind == 2:
            text = rng.choice(library)
            begin = rng.randrange(max(1, len(text) - 50))
            strings.append(text[begin : begin + rng.randrange(1, 400)])
        elif kind == 3:
            strings.append("".join(rng.choice(words) for _ in range(rng.randrange(1, 25))))
        elif kind == 4:
            character = rng.choice(rng.choice(categories))
            strings.append(character * rng.randrange(1, 300) + rng.choice(words))
        else:
            text = rng.choice(library)
            begin = rng.randrange(max(1, len(text) - 50))
            part = list(text[begin : begin + 80])
            for _ in range(10):
                part.insert(rng.randrange(len(part) + 1), rng.choice(rng.choice(blocks)))
            strings.append("".join(part))
    return strings


def run(binary, model, name, requests):
    """The answers, as lists of ids or pairs of bytes."""
    data = b"".join(op + struct.pack("<I", len(p)) + p for op, p in requests)
    done = subprocess.run([binary, model, name], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{binary}: {done.stderr.decode('utf-8', 'replace')}")
    out, pos, answers = done.stdout, 0, []

    def take(width):
        nonlocal pos
        (n,) = struct.unpack_from("<I", out, pos)
        pos += 4 + n * width
        return out[pos - n * width : pos]

    for op, _ in requests:
        if op == b"D":
            answers.append((take(1), take(1)))
        else:
            ids = take(4)
            answers.append(list(struct.unpack(f"<{len(ids) // 4}i", ids)))
    return answers, done.stderr.decode().strip()


def check(kind, inputs, expected, actual):
    wrong = [i for i, e in enumerate(expected) if e != actual[i]]
    for i in wrong[:5]:
        print(
            f"MISMATCH {kind}: {inputs[i]!r:.300}\n"
            f"  want {expected[i]!r:.300}\n  got  {actual[i]!r:.300}"
        )
    print(f"{kind}: {len(inputs)} cases, {len(wrong)} mismatches")
    return len(wrong)


def check_encoding(binary, model, vocabulary, name, strings):
    mismatches, plain_ids = 0, []
    for op, parse_special in ((b"E", False), (b"S", True)):
        oracle = vocabulary.oracle(name, parse_special)
        encodings = oracle.encode_batch(strings, add_special_tokens=False)
        expected = [e.ids for e in encodings]
        actual, note = run(binary, model, name, [(op, s.encode()) for s in strings])
        kind = f"{name} encode{' with control tokens' if parse_special else ''}"
        mismatches += check(kind, strings, expected, actual)
        print(
            f"  {note}; {sum(len(s.encode()) for s in strings)} bytes,"
            f" {sum(map(len, actual))} tokens"
        )
        plain_ids = plain_ids or actual
    return mismatches, plain_ids


def check_decoding(binary, model, vocabulary, encoded):
    rng = random.Random(7)
    size = len(vocabulary.tokens)
    # Single-byte tokens above ASCII make sequences of damaged UTF-8.
    byte_tokens = [i for i, t in enumerate(vocabulary.tokens) if len(t) == 1 and ord(t) > 0xA0]
    sequences = encoded + [[i] for i in range(size)]
    for _ in range(5000):
        sequences.append([rng.randrange(size) for _ in range(rng.randrange(1, 40))])
        sequences.append([rng.choice(byte_tokens) for _ in range(rng.randrange(1, 40))])
    oracle = vocabulary.oracle("smollm", True)
    requests = [(b"D", struct.pack(f"<{len(ids)}i", *ids)) for ids in sequences]
    answers, _ = run(binary, model, "smollm", requests)
    whole = oracle.decode_batch(sequences, skip_special_tokens=False)
    text = oracle.decode_batch(sequences, skip_special_tokens=True)
    mismatches = check("decode", sequences, [t.encode() for t in whole], [a for a, _ in answers])
    return mismatches + check(
        "stream decode, control tokens left out",
        sequences,
        [t.encode() for t in text],
        [b for _, b in answers],
    )


def main():
    start = time.monotonic()
    binary, model = sys.argv[1:3]
    vocabulary = Vocabulary(model)
    strings = make_strings(vocabulary.control, 24000)
    mismatches, encoded = check_encoding(binary, model, vocabulary, "smollm", strings)
    for name in ("gpt2", "llama-bpe", "qwen2"):
        mismatches += check_encoding(binary, model, vocabulary, name, strings[:6000])[0]
    mismatches += check_decoding(binary, model, vocabulary, encoded)
    print(f"{mismatches} mismatches in all, {time.monotonic() - start:.1f} s")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
