"""Keyword arguments -> protobuf requests. What has the wrong type is refused here, with the argument's name; what is
out of the model's or the daemon's range is refused there, with the field's (InvalidArgumentError)."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, Literal, Optional, TypedDict, Union

from acuity.v1 import acuity_pb2 as pb

Attention = Literal["off", "summary", "layers", "heads"]
Pooling = Literal["last", "mean"]
# A text, or token ids.
Embeddable = Union[str, bytes, Sequence[int]]
# A conversation: its messages as {"role": ..., "content": ...}, or one user message.
Chat = Union[str, Sequence[Mapping[str, str]]]


class ScoreOptions(TypedDict, total=False):
    """Options of score()."""

    model: str  # default: the client's, else the daemon's first
    attention: Attention  # default: "summary" for long prompts, else "off"
    request_id: str  # for the logs, at most 128 bytes
    priority: int  # -100 to 100, higher goes first
    watch: Sequence[tuple[int, int]]  # parts of the prompt, tokens [begin, end): how much attention does each get?
    timeout: float  # seconds, retries included; default: the client's


class EmbedOptions(TypedDict, total=False):
    """Options of embed()."""

    model: str  # default: the client's, else the daemon's first
    pooling: Pooling  # of the tokens' hidden states; default: "last"
    normalize: bool  # to length 1; default: as the model has it
    cache_salt: str
    request_id: str
    priority: int
    timeout: float


class GenerateOptions(ScoreOptions, total=False):
    """Options of generate() and stream(). Ranges and defaults are those of acuity.v1.Sampling."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int
    n: int
    max_tokens: int
    min_tokens: int
    stop: Union[str, Sequence[str]]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    logprobs: int
    tenant: str
    cache_salt: str
    continue_final_message: bool


def _wrong(name: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{name}: {value!r} is not {wanted}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _wrong(name, value, "a number")
    return float(value)


def _integer(bits: int, signed: bool = True) -> Callable[[str, Any], int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise _wrong(name, value, "a whole number")
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"{name}: {number} is not within {low} to {high}")
        return number

    return check


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a str")
    return value


def _list(name: str, values: Any, check: Callable[[str, Any], Any]) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise _wrong(name, values, "a list")
    return [check(f"{name}[{index}]", value) for index, value in enumerate(values)]


_int32 = _integer(32)


def _stops(name: str, value: Any) -> list[str]:
    return [value] if isinstance(value, str) else _list(name, value, _text)


def _bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a dict of token id to number")
    return {_int32(name, token): _number(f"{name}[{token}]", bias) for token, bias in value.items()}


def _span(name: str, value: Any) -> pb.TokenSpan:
    ends = _list(name, value, _int32)
    if len(ends) != 2:
        raise _wrong(name, value, "a pair (begin, end)")
    return pb.TokenSpan(begin=ends[0], end=ends[1])


def _spans(name: str, value: Any) -> list[pb.TokenSpan]:
    return _list(name, value, _span)


def _detail(name: str, value: Any) -> int:
    if value not in ("off", "summary", "layers", "heads"):
        raise ValueError(f'{name}: {value!r} is not "off", "summary", "layers" or "heads"')
    return pb.AttentionDetail.Value(f"ATTENTION_DETAIL_{value.upper()}")


def _pooling(name: str, value: Any) -> int:
    if value not in ("last", "mean"):
        raise ValueError(f'{name}: {value!r} is not "last" or "mean"')
    return pb.Pooling.Value(f"POOLING_{value.upper()}")


_SAMPLING: dict[str, Callable[[str, Any], Any]] = {
    "temperature": _number, "top_k": _int32, "top_p": _number, "min_p": _number, "repetition_penalty": _number,
    "presence_penalty": _number, "frequency_penalty": _number, "logit_bias": _bias, "seed": _integer(64, signed=False),
    "n": _int32, "max_tokens": _int32, "min_tokens": _int32, "stop": _stops,
    "stop_token_ids": lambda name, value: _list(name, value, _int32), "ignore_eos": _boolean, "logprobs": _int32,
}
_SCORE: dict[str, Callable[[str, Any], Any]] = {
    "model": _text, "attention": _detail, "request_id": _text, "priority": _int32, "watch": _spans,
}
_EMBED: dict[str, Callable[[str, Any], Any]] = {
    "model": _text, "pooling": _pooling, "normalize": _boolean, "cache_salt": _text, "request_id": _text,
    "priority": _int32,
}
_GENERATE: dict[str, Callable[[str, Any], Any]] = {
    **_SCORE, "tenant": _text, "cache_salt": _text, "continue_final_message": _boolean,
}


def _checked(options: Mapping[str, Any], known: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """The options that are given, None being not given."""
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the options are {', '.join(sorted(known))}"
            raise TypeError(f"unknown option {name!r}{hint}")
    return {name: known[name](name, value) for name, value in options.items() if value is not None}


def make_prompt(prompt: Optional[Union[str, bytes]], chat: Optional[Chat],
                token_ids: Optional[Iterable[int]]) -> pb.Prompt:
    given = [name for name, value in (("prompt", prompt), ("chat", chat), ("token_ids", token_ids)) if value is not None]
    if len(given) != 1:
        raise TypeError(f"exactly one of prompt, chat and token_ids is needed, not {' and '.join(given) or 'none'}")
    if token_ids is not None:
        return pb.Prompt(token_ids=pb.TokenIds(ids=_list("token_ids", token_ids, _int32)))
    if chat is not None:
        messages = [{"role": "user", "content": chat}] if isinstance(chat, str) else _list("chat", chat, _message)
        return pb.Prompt(chat=pb.Chat(messages=[pb.ChatMessage(role=m["role"], content=m["content"]) for m in messages]))
    if not isinstance(prompt, (str, bytes)):
        raise _wrong("prompt", prompt, "a str or bytes")
    return pb.Prompt(text=prompt if isinstance(prompt, bytes) else _utf8("prompt", prompt))


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: {error.reason} at {error.start}") from error


def _message(name: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or set(value) != {"role", "content"}:
        raise _wrong(name, value, 'a dict of "role" and "content"')
    for key in ("role", "content"):
        _utf8(f"{name}[{key!r}]", _text(f"{name}[{key!r}]", value[key]))
    return value


def make_generate(prompt: pb.Prompt, options: Mapping[str, Any]) -> pb.GenerateRequest:
    """`options` without `timeout`; an unset model is left "". """
    checked = _checked(options, {**_GENERATE, **_SAMPLING})
    sampling = pb.Sampling(**{name: checked.pop(name) for name in list(checked) if name in _SAMPLING})
    return pb.GenerateRequest(prompt=prompt, sampling=sampling, **checked)


def make_score(prompt: pb.Prompt, options: Mapping[str, Any]) -> pb.ScoreRequest:
    return pb.ScoreRequest(prompt=prompt, **_checked(options, _SCORE))


def make_embed(prompts: Sequence[Embeddable], options: Mapping[str, Any]) -> pb.EmbedRequest:
    def make(name: str, value: Any) -> pb.Prompt:
        if isinstance(value, bytes):
            return pb.Prompt(text=value)
        if isinstance(value, str):
            return pb.Prompt(text=_utf8(name, value))
        return pb.Prompt(token_ids=pb.TokenIds(ids=_list(name, value, _int32)))

    return pb.EmbedRequest(prompts=_list("prompts", prompts, make), **_checked(options, _EMBED))


def make_tokenize(prompt: pb.Prompt, model: Optional[str]) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(prompt=prompt, **_checked({"model": model}, {"model": _text}))


def make_detokenize(token_ids: Iterable[int], model: Optional[str]) -> pb.DetokenizeRequest:
    return pb.DetokenizeRequest(token_ids=_list("token_ids", token_ids, _int32),
                                **_checked({"model": model}, {"model": _text}))


def make_timeout(value: Any) -> Optional[float]:
    """Seconds; None is no limit."""
    if value is None:
        return None
    seconds = _number("timeout", value)
    if math.isnan(seconds) or seconds <= 0:
        raise ValueError(f"timeout: {value} is not above 0 seconds")
    return seconds if seconds < math.inf else None
