"""The families' pipelines as their own tokenizer.json has them, around any vocabulary, and the
comparison of Acuity's tokenizer with them."""

import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?%s+|\p{N}%s| ?[^\s%s]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+%(suffix)s|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*%(suffix)s"
    r"|%(number)s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


def split(*patterns):
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    return sequence(*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))


def gpt2(*before):
    return sequence(*before, pre_tokenizers.ByteLevel(add_prefix_space=False))


def each_digit():
    return pre_tokenizers.Digits(individual_digits=True)


BYTE_LEVEL = {  # name: normaliser, pre-tokenizer, ignore_merges
    "gpt2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "gpt-neox": (normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (None, gpt2(each_digit()), False),
    "starcoder": (None, gpt2(each_digit()), False),
    "command-r": (normalizers.NFC(), gpt2(each_digit()), False),
    "llama-3": (None, split(GPT4 % (r"\p{L}", "{1,3}", r"\p{L}\p{N}")), True),
    "olmo-2": (None, split(GPT4 % (r"\p{L}", "{1,3}", r"\p{L}\p{N}")), False),
    "qwen2": (normalizers.NFC(), split(GPT4 % (r"\p{L}", "", r"\p{L}\p{N}")), False),
    "qwen3.5": (None, split(GPT4 % (r"[\p{L}\p{M}]", "", r"\p{L}\p{M}\p{N}")), False),
    "o200k": (
        None,
        split(CASED % {"suffix": "(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "number": r"\p{N}{1,3}"}),
        False,
    ),
    "tekken": (None, split(CASED % {"suffix": "", "number": r"\p{N}"}), True),
    "deepseek-v3": (None, split(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK), False),
    "deepseek-coder": (
        None,
        split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
        False,
    ),
}


def byte_level(family, vocab, merges):
    normaliser, pre_tokenizer, ignore_merges = BYTE_LEVEL[family]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    if normaliser is not None:
        tokenizer.normalizer = normaliser
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


SPACES = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
SENTENCE_PIECE = {  # name: normaliser, pre-tokenizer, what the decoder strips
    "llama-2": (normalizers.Sequence(SPACES), None, 1),
    "mistral": (
        None,
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False),
        1,
    ),
    "always": (
        None,
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        1,
    ),
    "gemma": (
        normalizers.Replace(" ", "▁"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        0,
    ),
}


def sentence_piece(family, vocab, merges):
    normaliser, pre_tokenizer, strips = SENTENCE_PIECE[family]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    if normaliser is not None:
        tokenizer.normalizer = normaliser
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", strips, 0)] * bool(strips))
    return tokenizer


def unigram(vocab, unk_id, character_map=None):
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id, byte_fallback=False))
    steps = [normalizers.Precompiled(character_map)] if character_map else []
    steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def add_template(tokenizer, before=(), after=()):
    pieces = [*before, "$A", *after]
    special = [(t, tokenizer.token_to_id(t)) for t in (*before, *after)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=pieces, pair=pieces + ["$B"], special_tokens=special
    )


def save(tokenizer, folder, config=None):
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config or {}, file)
    return folder


def ask(binary, model, requests):
    """The answers, as lists of ids or pairs of bytes, and what the binary says of its speed."""
    data = b"".join(op + struct.pack("<I", len(p)) + p for op, p in requests)
    done = subprocess.run([binary, model], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{binary} {model}: {done.stderr.decode('utf-8', 'replace')}")
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


class Report:
    def __init__(self):
        self.compared = self.mismatches = 0

    def check(self, kind, inputs, expected, actual):
        wrong = [i for i, e in enumerate(expected) if e != actual[i]]
        for i in wrong[:5]:
            print(
                f"MISMATCH {kind}: {inputs[i]!r:.300}\n"
                f"  want {expected[i]!r:.300}\n  got  {actual[i]!r:.300}"
            )
        print(f"{kind}: {len(inputs)} cases, {len(wrong)} mismatches", flush=True)
        self.compared += len(inputs)
        self.mismatches += len(wrong)


def comparable(oracle, strings, plain):
    """Leaves out what Hugging Face's own limits decide.

    Its normalisers know Unicode 9: they leave marks of later versions where they are. And its
    unigram model makes control tokens of their spelling in plain text; Acuity never does."""
    tests = []
    for form in ("NFKC", "NFC"):
        if form in str(oracle.normalizer):
            normaliser = getattr(normalizers, form)()
            tests.append(
                lambda s, n=normaliser, f=form: n.normalize_str(s) == unicodedata.normalize(f, s)
            )
            break
    if plain and isinstance(oracle.model, models.Unigram):
        special = [t.content for t in oracle.get_added_tokens_decoder().values() if t.special]
        tests.append(lambda s: not any(t in s for t in special))
    return [s for s in strings if all(test(s) for test in tests)]


def compare(report, binary, model, name, oracle, strings, decode=True, unused=()):
    """Encodes `strings` as plain text, some with control tokens and with what is put around a text;
    decodes the results, single tokens and random sequences, as a whole and in a stream.

    Where bytes have tokens of their own, random sequences have none of them: Hugging Face's
    ByteFallback makes one U+FFFD of every byte of a run that is not valid UTF-8 as a whole, the
    valid ones too. A stream cannot know that; Acuity keeps what is valid, as Python does."""
    encoded = None
    for op, add, plain in ((b"E", False, True), (b"S", False, False), (b"W", True, False)):
        if op == b"W" and oracle.post_processor is None:
            continue
        oracle.encode_special_tokens = plain
        cases = {b"E": strings, b"S": strings[: len(strings) // 4], b"W": strings[:500]}[op]
        cases = comparable(oracle, cases, plain)
        expected = [e.ids for e in oracle.encode_batch(cases, add_special_tokens=add)]
        actual, note = ask(binary, model, [(op, s.encode()) for s in cases])
        report.check(f"{name} encode {op.decode()}", cases, expected, actual)
        if op == b"E":
            encoded = actual
            print(f"  {note}; {sum(len(s.encode()) for s in cases)} bytes")
    if decode:
        check_decoding(report, binary, model, name, oracle, encoded, unused)


def check_decoding(report, binary, model, name, oracle, encoded, unused):
    rng = random.Random(7)
    used = sorted(set(oracle.get_vocab().values()) - set(unused))
    sequences = encoded + [[i] for i in rng.sample(used, min(len(used), 20000))]
    for _ in range(4000):
        sequences.append([rng.choice(used) for _ in range(rng.randrange(1, 40))])
    byte_tokens = [i for t, i in oracle.get_vocab().items() if t.startswith("<0x") and len(t) == 6]
    if byte_tokens:  # without damaged runs, whose text is not defined in the same way
        bad = set(byte_tokens)
        tail = [s for s in sequences[len(encoded) :] if not bad & set(s)]
        sequences = encoded + tail
    else:  # single bytes above ASCII make damaged UTF-8
        byte_tokens = [i for t, i in oracle.get_vocab().items() if len(t) == 1 and ord(t) > 0xA0]
        for _ in range(4000):
            sequences.append([rng.choice(byte_tokens) for _ in range(rng.randrange(1, 40))])
    requests = [(b"D", struct.pack(f"<{len(ids)}i", *ids)) for ids in sequences]
    answers, _ = ask(binary, model, requests)
    whole = oracle.decode_batch(sequences, skip_special_tokens=False)
    report.check(f"{name} decode", sequences, [t.encode() for t in whole], [a for a, _ in answers])
    text = oracle.decode_batch(sequences, skip_special_tokens=True)
    report.check(
        f"{name} stream decode", sequences, [t.encode() for t in text], [b for _, b in answers]
    )
