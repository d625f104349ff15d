"""What calls return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from acuity.attention import AttentionReport, report_from
from acuity.spans import SpanReport, spans_from
from acuity.v1 import acuity_pb2 as pb

FINISH_REASONS = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    logprob: float  # natural logarithm, before any sampling parameter
    token: bytes  # need not be whole characters


@dataclass(frozen=True)
class TokenLogprobs:
    """A token that was chosen, and the most likely ones in its place."""

    token: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Delta:
    """What one sample has to say next."""

    sample: int  # 0 to n - 1
    text: str  # whole characters; "" while a character or a possible stop string is incomplete
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: Optional[str]  # "stop" or "length" on the sample's last delta


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int  # of all samples
    cached_tokens: int  # prompt tokens found in the prefix cache: not computed, hence not measured


@dataclass(frozen=True)
class Timings:
    queue_seconds: float
    time_to_first_token_seconds: float
    total_seconds: float
    preemptions: int


@dataclass(frozen=True)
class Sample:
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str  # "stop" or "length"
    logprobs: tuple[TokenLogprobs, ...]  # empty unless asked for


@dataclass(frozen=True)
class GenerateResult:
    """`text`, `token_ids`, `finish_reason` and `logprobs` are those of the first sample."""

    samples: tuple[Sample, ...]
    usage: Usage
    timings: Timings
    prompt_attention: Optional[AttentionReport]  # of the prompt's rows that this request computed; None: not measured
    generated_attention: Optional[AttentionReport]
    prompt_spans: Optional[SpanReport]  # of the prompt's last row, which predicts the first token; None: no watch
    generated_spans: Optional[SpanReport]  # of the rows of generated tokens; None also where there is none
    seed: int
    request_id: str

    @property
    def text(self) -> str:
        return self.samples[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.samples[0].token_ids

    @property
    def finish_reason(self) -> str:
        return self.samples[0].finish_reason

    @property
    def logprobs(self) -> tuple[TokenLogprobs, ...]:
        return self.samples[0].logprobs


@dataclass(frozen=True)
class ScoreResult:
    token_ids: tuple[int, ...]
    logprobs: tuple[Optional[float], ...]  # of each token given those before it; None for the first
    usage: Usage
    timings: Timings
    prompt_attention: Optional[AttentionReport]
    prompt_spans: Optional[SpanReport]  # of the prompt's last row; None: no watch


@dataclass(frozen=True)
class Embedding:
    values: tuple[float, ...]
    usage: Usage
    timings: Timings


@dataclass(frozen=True)
class Tokens:
    token_ids: tuple[int, ...]
    tokens: tuple[bytes, ...]


@dataclass(frozen=True)
class ModelStatus:
    waiting: int
    running: int
    held_blocks: int
    computed_tokens: int  # since the start
    generated_tokens: int
    last_attention: Optional[AttentionReport]  # summary of the last prompt that was measured


@dataclass(frozen=True)
class Model:
    name: str
    architecture: str
    display_name: str
    stored_type: str
    dtype: str
    attention_policy: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int
    parameters: int
    weight_bytes: int
    kv_bytes: int
    block_size: int
    num_blocks: int
    chat: bool
    cpu_isa: str
    status: ModelStatus
    kv_dtype: str


class Gatherer:
    """Adds the messages of one Generate stream up to its result."""

    def __init__(self) -> None:
        self.result: Optional[GenerateResult] = None
        self._deltas: dict[int, list[Delta]] = {}

    def add(self, message: pb.GenerateResponse) -> list[Delta]:
        deltas = [_delta(d) for d in message.deltas]
        for delta in deltas:
            self._deltas.setdefault(delta.sample, []).append(delta)
        if message.HasField("result"):
            self.result = self._finish(message.result)
        return deltas

    def _finish(self, m: pb.GenerateResult) -> GenerateResult:
        return GenerateResult(tuple(_sample(self._deltas[i]) for i in sorted(self._deltas)), _usage(m.usage),
                              _timings(m.timings), report_from(m.prompt_attention),
                              report_from(m.generated_attention), spans_from(m.prompt_spans),
                              spans_from(m.generated_spans), m.seed, m.request_id)


def score_result(m: pb.ScoreResponse) -> ScoreResult:
    logprobs = (None, *m.logprobs[1:]) if m.logprobs else ()
    return ScoreResult(tuple(m.token_ids), logprobs, _usage(m.usage), _timings(m.timings),
                       report_from(m.prompt_attention), spans_from(m.prompt_spans))


def embeddings(m: pb.EmbedResponse) -> list[Embedding]:
    return [Embedding(tuple(e.values), _usage(e.usage), _timings(e.timings)) for e in m.embeddings]


def tokens(m: pb.TokenizeResponse) -> Tokens:
    return Tokens(tuple(m.token_ids), tuple(m.tokens))


def model(m: pb.Model) -> Model:
    s = m.status
    status = ModelStatus(s.waiting, s.running, s.held_blocks, s.computed_tokens, s.generated_tokens,
                         report_from(s.last_attention))
    return Model(m.name, m.architecture, m.display_name, m.stored_type, m.dtype, m.attention_policy, m.num_layers,
                 m.num_heads, m.num_kv_heads, m.head_dim, m.vocab_size, m.max_context, m.parameters, m.weight_bytes,
                 m.kv_bytes, m.block_size, m.num_blocks, m.chat, m.cpu_isa, status, m.kv_dtype)


def _sample(deltas: list[Delta]) -> Sample:
    return Sample("".join(d.text for d in deltas), tuple(i for d in deltas for i in d.token_ids),
                  deltas[-1].finish_reason or "", tuple(p for d in deltas for p in d.logprobs))


def _delta(m: pb.Delta) -> Delta:
    return Delta(m.sample, m.text, tuple(m.token_ids),
                 tuple(TokenLogprobs(_logprob(p.token), tuple(_logprob(t) for t in p.top)) for p in m.logprobs),
                 FINISH_REASONS.get(m.finish_reason))


def _logprob(m: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(m.token_id, m.logprob, m.token)


def _usage(m: pb.Usage) -> Usage:
    return Usage(m.prompt_tokens, m.completion_tokens, m.cached_tokens)


def _timings(m: pb.Timings) -> Timings:
    return Timings(m.queue_seconds, m.time_to_first_token_seconds, m.total_seconds, m.preemptions)
