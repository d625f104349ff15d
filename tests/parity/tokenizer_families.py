"""Every family's tokenizer.json, around a vocabulary trained here, against Hugging Face's.

Usage: tokenizer_families.py TOKENIZER_DUMP

Trains small vocabularies on this folder's texts and Python's standard library, writes them as each
family ships its own, and compares encoding and decoding of 2,000 strings each
(ACUITY_STRINGS: how many; 21000 before a release). Covers what the
real vocabularies of tokenizer_parity.py do not: the other pre-tokenizers, metaspace schemes, NFKC,
templates, and added tokens of every kind. Prints counts; exits 1 if anything differs.
"""

import json
import os
import random
import sys
import tempfile
import time
import unicodedata

import tokenizer_oracle as oracles
from tokenizer_texts import WORDS, library_text, make_strings
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import trainers

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
# Its Punctuation knows that of an old Unicode only: it gets characters of Unicode 3.2.
WORDS_FAMILY = "NFKC, words"
# Kinds of added tokens: what takes white space, whole words only, normalised or not.
ADDED = [
    AddedToken("<tool>", special=False, normalized=False),
    AddedToken("<left>", special=False, normalized=False, lstrip=True),
    AddedToken("<right>", special=False, normalized=False, rstrip=True),
    AddedToken("<both>", special=True, normalized=False, lstrip=True, rstrip=True),
    AddedToken("word", special=False, normalized=False, single_word=True),
    AddedToken("Ａ b", special=False, normalized=True),
    AddedToken("x  y", special=False, normalized=True),
    AddedToken("éé", special=False, normalized=True, single_word=True),
]


def in_unicode_3(text):
    return all(unicodedata.ucd_3_2_0.category(c) != "Cn" for c in text)


def corpus(metaspace):
    texts = [t[:40000] for t in library_text()[::8]] + WORDS * 3
    return [t.replace(" ", "▁") for t in texts] if metaspace else texts


def train_bytes():
    """Vocabulary and merges over GPT-2's alphabet, with all 256 bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(False), trainer)
    return parts(tokenizer)


def train_pieces():
    """Vocabulary and merges over characters, with the 256 byte tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=SPECIAL + [f"<0x{b:02X}>" for b in range(256)],
        limit_alphabet=300,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(True), trainer)
    return parts(tokenizer)


def parts(tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def train_unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=2000, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(False), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return [tuple(piece) for piece in model["vocab"]], model["unk_id"]


def add_tokens(tokenizer, normalised_special=False):
    for text in SPECIAL:
        token = AddedToken(text, special=True, normalized=normalised_special)
        tokenizer.add_special_tokens([token])
    tokenizer.add_tokens([t for t in ADDED if not t.special])
    tokenizer.add_special_tokens([t for t in ADDED if t.special])


def families():
    """(name, tokenizer) of each."""
    vocab, merges = train_bytes()
    for family in oracles.BYTE_LEVEL:
        yield family, oracles.byte_level(family, vocab, merges)
    prefixed = oracles.byte_level("gpt2", vocab, merges)
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    yield "gpt2, prefix space", prefixed
    folded = oracles.byte_level("gpt2", vocab, merges)
    folded.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(True, True)])
    folded.pre_tokenizer = oracles.sequence(
        pre_tokenizers.Punctuation("merged_with_previous"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    )
    yield WORDS_FAMILY, folded
    vocab, merges = train_pieces()
    for family in oracles.SENTENCE_PIECE:
        yield family, oracles.sentence_piece(family, vocab, merges)
    partial = {t: i for t, i in vocab.items() if not t.startswith("<0x")}
    renumbered = {t: i for i, t in enumerate(partial)}
    fused = oracles.sentence_piece("llama-2", renumbered, merges)
    yield "llama-2 without bytes", fused
    yield "unigram", oracles.unigram(*train_unigram())


def main():
    start = time.monotonic()
    binary = sys.argv[1]
    count = int(os.environ.get("ACUITY_STRINGS", "2000"))
    report = oracles.Report()
    added = [t.content for t in ADDED] + ["password", "word", " <left>", "<right> ", "<both>"]
    strings = make_strings([*SPECIAL, *added], count)
    chosen = sys.argv[2:]
    for name, tokenizer in families():
        if chosen and name not in chosen:
            continue
        add_tokens(tokenizer)
        oracles.add_template(tokenizer, before=["<s>"], after=["</s>"])
        with tempfile.TemporaryDirectory() as folder:
            oracles.save(tokenizer, folder)
            cases = [s for s in strings if not name == WORDS_FAMILY or in_unicode_3(s)]
            oracles.compare(report, binary, folder, name, tokenizer, cases)
    print(
        f"{report.compared} comparisons, {report.mismatches} mismatches,"
        f" {time.monotonic() - start:.1f} s"
    )
    return 1 if report.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
