"""Tokenizers of real models against Hugging Face's, id for id and byte for byte.

Usage: tokenizer_parity.py TOKENIZER_DUMP MODEL.gguf VOCABULARIES [FILE...]

The oracle is built from the vocabulary and merges (or scores) of the GGUF file, with the pipeline
of that family's tokenizer.json; it is compared with what Acuity reads from the GGUF, and with what
it reads from the oracle saved as tokenizer.json. VOCABULARIES is where scripts/setup put those of
llama.cpp's sources; their .inp and .out files, made with the families' original tokenizers, are
compared as well. Prints counts; exits 1 if anything differs.
"""

import os
import pathlib
import sys
import tempfile
import time

import gguf
import tokenizer_oracle as oracles
from tokenizer_texts import make_strings
from tokenizers import AddedToken

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # token types
# File of llama.cpp's: family.
FILES = {
    "gpt-2": "gpt2",
    "llama-bpe": "llama-3",
    "qwen2": "qwen2",
    "qwen35": "qwen3.5",
    "starcoder": "starcoder",
    "refact": "starcoder",
    "command-r": "command-r",
    "mpt": "gpt-neox",
    "deepseek-coder": "deepseek-coder",
    "llama-spm": "llama-2",
    "phi-3": "llama-2",
    "gemma-4": "gemma",
    "nomic-bert-moe": "unigram",
}
SEPARATOR = "\n__ggml_vocab_test__\n"


class Vocabulary:
    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields

        def read(key):
            return fields[key].contents() if key in fields else None

        self.architecture = read("general.architecture")
        self.tokens = read("tokenizer.ggml.tokens")
        self.types = read("tokenizer.ggml.token_type")
        self.scores = read("tokenizer.ggml.scores")
        self.unk = read("tokenizer.ggml.unknown_token_id")
        self.character_map = read("tokenizer.ggml.precompiled_charsmap")
        # No spelling has a space but at its start: the next one is the separator.
        merges = read("tokenizer.ggml.merges") or []
        self.merges = [(m[: m.index(" ", 1)], m[m.index(" ", 1) + 1 :]) for m in merges]
        self.control = [t for t, kind in zip(self.tokens, self.types) if kind == CONTROL]

    def rstrip(self, token):
        """Phi-3's control tokens take the white space behind them."""
        return self.architecture == "phi3" and token not in ("<unk>", "<s>", "<|endoftext|>")

    def scored_merges(self):
        """As transformers makes them from a SentencePiece model: every split of every piece, the
        best pieces first."""
        ids = {token: i for i, token in enumerate(self.tokens)}
        merges = []
        for token, score in zip(self.tokens, self.scores):
            local = []
            for at in range(1, len(token)):
                left, right = token[:at], token[at:]
                if left in ids and right in ids:
                    local.append((left, right, score))
            local.sort(key=lambda merge: (ids[merge[0]], ids[merge[1]]))
            merges.extend(local)
        merges.sort(key=lambda merge: merge[2], reverse=True)
        return [(left, right) for left, right, _ in merges]

    def oracle(self, family):
        ids = {token: i for i, token in enumerate(self.tokens)}
        if family == "unigram":
            pieces = list(zip(self.tokens, self.scores))
            map_bytes = bytes(b & 255 for b in self.character_map)
            tokenizer = oracles.unigram(pieces, self.unk, map_bytes)
        elif family in oracles.SENTENCE_PIECE:
            merges = self.merges or self.scored_merges()
            tokenizer = oracles.sentence_piece(family, ids, merges)
        else:
            tokenizer = oracles.byte_level(family, ids, self.merges)
        added = [
            AddedToken(t, special=kind != USER_DEFINED, normalized=False, rstrip=self.rstrip(t))
            for t, kind in zip(self.tokens, self.types)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
        tokenizer.add_tokens([t for t in added if not t.special])
        tokenizer.add_special_tokens([t for t in added if t.special])
        return tokenizer


def check_originals(report, binary, path):
    """The texts and ids that come with the file."""
    inputs = pathlib.Path(f"{path}.inp")
    if not inputs.exists():
        return
    texts = inputs.read_text("utf-8").split(SEPARATOR)
    lines = pathlib.Path(f"{path}.out").read_text("utf-8").splitlines()
    expected = [[int(i) for i in line.split()] for line in lines]
    actual, _ = oracles.ask(binary, str(path), [(b"E", t.encode()) for t in texts[: len(lines)]])
    report.check(f"{path.name} original", texts, expected, actual)


def check_file(report, binary, path, family, count):
    vocabulary = Vocabulary(path)
    oracle = vocabulary.oracle(family)
    strings = make_strings(vocabulary.control[:40], count)
    unused = [i for i, kind in enumerate(vocabulary.types) if kind == UNUSED]
    name = f"{path.name} ({family})"
    oracles.compare(report, binary, str(path), name, oracle, strings, unused=unused)
    check_originals(report, binary, path)
    with tempfile.TemporaryDirectory() as folder:
        oracles.save(oracle, folder)
        name = f"{path.name} as tokenizer.json"
        oracles.compare(report, binary, folder, name, oracle, strings[: count // 4], decode=False)


def main():
    start = time.monotonic()
    binary, model, folder = sys.argv[1:4]
    chosen = sys.argv[4:] or ["smollm", *FILES]
    report = oracles.Report()
    for name in chosen:
        path = pathlib.Path(model if name == "smollm" else f"{folder}/ggml-vocab-{name}.gguf")
        check_file(report, binary, path, FILES.get(name, "smollm"), int(os.environ.get("ACUITY_STRINGS", "2000")))
    print(
        f"{report.compared} comparisons, {report.mismatches} mismatches,"
        f" {time.monotonic() - start:.1f} s"
    )
    return 1 if report.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
