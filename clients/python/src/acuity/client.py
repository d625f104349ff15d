"""The synchronous client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import grpc

from acuity import _connection, _requests, _results
from acuity._base import BaseClient
from acuity._requests import Chat, Embeddable, EmbedOptions, GenerateOptions, ScoreOptions
from acuity._results import Delta, Embedding, GenerateResult, Model, ScoreResult, Tokens
from acuity.errors import AcuityError, CancelledError, InternalError, from_rpc_error
from acuity.v1 import acuity_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class Stream:
    """A generation under way: iterate for its deltas, then ask for result().

    Leaving the loop early, leaving the `with` block, cancel() from any thread, or dropping the last reference cancels
    the request; the daemon then frees what it held.
    """

    def __init__(self, call: Callable[[Optional[float]], Any], retry: _connection.Retry,
                 timeout: Optional[float]) -> None:
        self._start = call
        self._retry = retry
        self._clock = _connection.Clock(timeout)
        self._gatherer = _results.Gatherer()
        self._cancelled = threading.Event()
        self._attempt = 1
        self._call = call(self._clock.remaining())
        self._deltas = self._read()

    def __iter__(self) -> Iterator[Delta]:
        try:
            yield from self._deltas
        finally:
            if self._gatherer.result is None:
                self.cancel()

    def result(self) -> GenerateResult:
        """Reads what is left, and returns the whole."""
        for _ in self._deltas:
            pass
        if self._gatherer.result is None:
            raise CancelledError("CANCELLED", "the stream was not read to its end")
        return self._gatherer.result

    def cancel(self) -> None:
        """Thread-safe; nothing after the end."""
        self._cancelled.set()
        self._call.cancel()

    def _read(self) -> Iterator[Delta]:
        started = False
        while True:
            try:
                for message in self._call:
                    started = True
                    yield from self._gatherer.add(message)
                if self._gatherer.result is None:
                    raise InternalError("INTERNAL", "the stream ended without a result")
                return
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
            wait = None if started else self._retry.delay(error, self._attempt, self._clock.remaining())
            if wait is None:
                raise error
            if self._cancelled.wait(wait):
                raise CancelledError("CANCELLED", "cancelled while waiting to try again")
            self._attempt += 1
            self._call = self._start(self._clock.remaining())
            if self._cancelled.is_set():
                self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            self._call.cancel()


class Client(BaseClient):
    """A connection to a daemon. Thread-safe. Close it, or use it as a context manager."""

    _insecure_channel = staticmethod(grpc.insecure_channel)
    _secure_channel = staticmethod(grpc.secure_channel)

    def generate(self, prompt: Optional[Union[str, bytes]] = None, *, chat: Optional[Chat] = None,
                 token_ids: Optional[Iterable[int]] = None, **options: Unpack[GenerateOptions]) -> GenerateResult:
        """Generates to the end. Exactly one of prompt (raw text), chat and token_ids."""
        with self.stream(prompt, chat=chat, token_ids=token_ids, **options) as stream:
            return stream.result()

    def stream(self, prompt: Optional[Union[str, bytes]] = None, *, chat: Optional[Chat] = None,
               token_ids: Optional[Iterable[int]] = None, **options: Unpack[GenerateOptions]) -> Stream:
        """Starts to generate; the arguments of generate()."""
        timeout = self._timeout_of(options)
        request = _requests.make_generate(_requests.make_prompt(prompt, chat, token_ids), options)
        request.model = request.model or self._default_model()

        def call(remaining: Optional[float]) -> Any:
            return self._stub.Generate(request, timeout=remaining, metadata=self._settings.metadata())

        return Stream(call, self._settings.retry, timeout)

    def score(self, prompt: Optional[Union[str, bytes]] = None, *, token_ids: Optional[Iterable[int]] = None,
              **options: Unpack[ScoreOptions]) -> ScoreResult:
        """The log-probability of each token given those before it."""
        timeout = self._timeout_of(options)
        request = _requests.make_score(_requests.make_prompt(prompt, None, token_ids), options)
        return _results.score_result(self._ask(self._stub.Score, request, timeout))

    def embed(self, prompts: Sequence[Embeddable], **options: Unpack[EmbedOptions]) -> list[Embedding]:
        """A vector for each prompt, of 1 to 64: text, or token ids."""
        timeout = self._timeout_of(options)
        request = _requests.make_embed(prompts, options)
        return _results.embeddings(self._ask(self._stub.Embed, request, timeout))

    def tokenize(self, prompt: Optional[Union[str, bytes]] = None, *, chat: Optional[Chat] = None,
                 model: Optional[str] = None, timeout: Optional[float] = None) -> Tokens:
        request = _requests.make_tokenize(_requests.make_prompt(prompt, chat, None), model)
        return _results.tokens(self._ask(self._stub.Tokenize, request, self._timeout_of({"timeout": timeout})))

    def detokenize(self, token_ids: Iterable[int], *, model: Optional[str] = None,
                   timeout: Optional[float] = None) -> str:
        request = _requests.make_detokenize(token_ids, model)
        timeout = self._timeout_of({"timeout": timeout})
        response: pb.DetokenizeResponse = self._ask(self._stub.Detokenize, request, timeout)
        return response.text

    def models(self, *, timeout: Optional[float] = None) -> list[Model]:
        """What the daemon serves, and what each model is doing now."""
        response: pb.ListModelsResponse = self._unary(self._stub.ListModels, pb.ListModelsRequest(),
                                                      self._timeout_of({"timeout": timeout}))
        return [_results.model(m) for m in response.models]

    def health(self, *, timeout: Optional[float] = None) -> bool:
        """Whether the daemon takes requests: False while it drains or is stuck. UnavailableError: nobody answers."""
        response: Any = self._unary(self._health_method(), _connection.HealthRequest(),
                                    self._timeout_of({"timeout": timeout}))
        return bool(response.value == _connection.SERVING)

    def close(self) -> None:
        """Cancels what still runs."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _default_model(self) -> str:
        if self._model is None:
            served = self._unary(self._stub.ListModels, pb.ListModelsRequest(), self._timeout)
            self._model = self._first_of(served)
        return self._model

    def _ask(self, method: Callable[..., T], request: Any, timeout: Optional[float]) -> T:
        """Of the request's model, or the default one."""
        request.model = request.model or self._default_model()
        return self._unary(method, request, timeout)

    def _unary(self, method: Callable[..., T], request: object, timeout: Optional[float]) -> T:
        clock = _connection.Clock(timeout)
        attempt = 1
        while True:
            try:
                return method(request, timeout=clock.remaining(), metadata=self._settings.metadata())
            except grpc.RpcError as rpc_error:
                error: AcuityError = from_rpc_error(rpc_error)
            wait = self._settings.retry.delay(error, attempt, clock.remaining())
            if wait is None:
                raise error
            time.sleep(wait)
            attempt += 1
