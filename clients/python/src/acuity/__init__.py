"""Client of Acuity, the daemon that serves language models and measures how sharply they attend.

    client = acuity.Client("127.0.0.1:8700")
    result = client.generate(long_text, attention="layers", max_tokens=64)
    result.prompt_attention.plot().savefig("attention.png")
"""

from acuity._connection import Retry
from acuity._requests import Attention, Chat, EmbedOptions, GenerateOptions, ScoreOptions
from acuity._results import (Delta, Embedding, GenerateResult, Model, ModelStatus, Sample, ScoreResult, Timings,
                             TokenLogprob, TokenLogprobs, Tokens, Usage)
from acuity.aio import AsyncClient, AsyncStream
from acuity.attention import AttentionBucket, AttentionReport, HeadAttention, LayerAttention
from acuity.client import Client, Stream
from acuity.errors import (AcuityError, CancelledError, DeadlineExceededError, FailedPreconditionError, FieldViolation,
                           InternalError, InvalidArgumentError, NotFoundError, PermissionDeniedError,
                           ResourceExhaustedError, UnauthenticatedError, UnavailableError)
from acuity.spans import HeadSpans, LayerSpans, SpanReport

__all__ = [
    "AcuityError", "AsyncClient", "AsyncStream", "Attention", "AttentionBucket", "AttentionReport",
    "CancelledError", "Chat", "Client", "DeadlineExceededError", "Delta", "EmbedOptions", "Embedding",
    "FailedPreconditionError", "FieldViolation", "GenerateOptions", "GenerateResult", "HeadAttention", "HeadSpans",
    "InternalError", "InvalidArgumentError", "LayerAttention", "LayerSpans", "Model", "ModelStatus", "NotFoundError",
    "PermissionDeniedError", "ResourceExhaustedError", "Retry", "Sample", "ScoreOptions", "ScoreResult", "SpanReport", "Stream",
    "Timings", "TokenLogprob", "TokenLogprobs", "Tokens", "UnauthenticatedError", "UnavailableError", "Usage",
]
