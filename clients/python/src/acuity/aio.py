"""The asyncio client: the same methods as Client, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import grpc
import grpc.aio

from acuity import _connection, _requests, _results
from acuity._base import BaseClient
from acuity._requests import Chat, Embeddable, EmbedOptions, GenerateOptions, ScoreOptions
from acuity._results import Delta, Embedding, GenerateResult, Model, ScoreResult, Tokens
from acuity.errors import AcuityError, CancelledError, InternalError, from_rpc_error
from acuity.v1 import acuity_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class AsyncStream:
    """A generation under way: `async for` its deltas, then `await` result().

    Leaving the loop early, leaving the `async with` block, cancel(), or cancelling the task that reads cancels the
    request; the daemon then frees what it held. The request is sent when the first delta or the result is asked for.
    """

    def __init__(self, call: Callable[[Optional[float]], Awaitable[Any]], retry: _connection.Retry,
                 timeout: Optional[float]) -> None:
        self._start = call
        self._retry = retry
        self._clock = _connection.Clock(timeout)
        self._gatherer = _results.Gatherer()
        self._cancelled = asyncio.Event()
        self._call: Any = None
        self._deltas = self._read()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        try:
            async for delta in self._deltas:
                yield delta
        finally:
            if self._gatherer.result is None:
                self.cancel()

    async def result(self) -> GenerateResult:
        """Reads what is left, and returns the whole."""
        async for _ in self._deltas:
            pass
        if self._gatherer.result is None:
            raise CancelledError("CANCELLED", "the stream was not read to its end")
        return self._gatherer.result

    def cancel(self) -> None:
        """From the event loop's thread; nothing after the end."""
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    async def _read(self) -> AsyncIterator[Delta]:
        attempt, started = 1, False
        while True:
            if self._cancelled.is_set():
                raise CancelledError("CANCELLED", "cancelled before it was sent")
            self._call = await self._start(self._clock.remaining())
            try:
                async for message in self._call:
                    started = True
                    for delta in self._gatherer.add(message):
                        yield delta
                if self._gatherer.result is None:
                    raise InternalError("INTERNAL", "the stream ended without a result")
                return
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
            except asyncio.CancelledError:
                if not self._cancelled.is_set():
                    self._call.cancel()  # the task's, not ours
                    raise
                error = CancelledError("CANCELLED", "cancelled by cancel()")
            wait = None if started else self._retry.delay(error, attempt, self._clock.remaining())
            if wait is None:
                raise error
            try:
                await asyncio.wait_for(self._cancelled.wait(), wait)
            except asyncio.TimeoutError:
                pass
            attempt += 1

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class AsyncClient(BaseClient):
    """Client for asyncio: the same arguments and methods. Use it in the event loop that made it."""

    _insecure_channel = staticmethod(grpc.aio.insecure_channel)
    _secure_channel = staticmethod(grpc.aio.secure_channel)

    async def generate(self, prompt: Optional[Union[str, bytes]] = None, *, chat: Optional[Chat] = None,
                       token_ids: Optional[Iterable[int]] = None, **options: Unpack[GenerateOptions]) -> GenerateResult:
        """Generates to the end. Exactly one of prompt (raw text), chat and token_ids."""
        async with self.stream(prompt, chat=chat, token_ids=token_ids, **options) as stream:
            return await stream.result()

    def stream(self, prompt: Optional[Union[str, bytes]] = None, *, chat: Optional[Chat] = None,
               token_ids: Optional[Iterable[int]] = None, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """A generation; the arguments of generate(). Not awaited itself."""
        timeout = self._timeout_of(options)
        request = _requests.make_generate(_requests.make_prompt(prompt, chat, token_ids), options)

        async def call(remaining: Optional[float]) -> Any:
            request.model = request.model or await self._default_model()
            return self._stub.Generate(request, timeout=remaining, metadata=self._settings.metadata())

        return AsyncStream(call, self._settings.retry, timeout)

    async def score(self, prompt: Optional[Union[str, bytes]] = None, *, token_ids: Optional[Iterable[int]] = None,
                    **options: Unpack[ScoreOptions]) -> ScoreResult:
        """The log-probability of each token given those before it."""
        timeout = self._timeout_of(options)
        request = _requests.make_score(_requests.make_prompt(prompt, None, token_ids), options)
        return _results.score_result(await self._ask(self._stub.Score, request, timeout))

    async def embed(self, prompts: Sequence[Embeddable], **options: Unpack[EmbedOptions]) -> list[Embedding]:
        """A vector for each prompt, of 1 to 64: text, or token ids."""
        timeout = self._timeout_of(options)
        request = _requests.make_embed(prompts, options)
        return _results.embeddings(await self._ask(self._stub.Embed, request, timeout))

    async def tokenize(self, prompt: Optional[Union[str, bytes]] = None, *, chat: Optional[Chat] = None,
                       model: Optional[str] = None, timeout: Optional[float] = None) -> Tokens:
        request = _requests.make_tokenize(_requests.make_prompt(prompt, chat, None), model)
        return _results.tokens(await self._ask(self._stub.Tokenize, request, self._timeout_of({"timeout": timeout})))

    async def detokenize(self, token_ids: Iterable[int], *, model: Optional[str] = None,
                         timeout: Optional[float] = None) -> str:
        request = _requests.make_detokenize(token_ids, model)
        timeout = self._timeout_of({"timeout": timeout})
        response: pb.DetokenizeResponse = await self._ask(self._stub.Detokenize, request, timeout)
        return response.text

    async def models(self, *, timeout: Optional[float] = None) -> list[Model]:
        """What the daemon serves, and what each model is doing now."""
        response: pb.ListModelsResponse = await self._unary(self._stub.ListModels, pb.ListModelsRequest(),
                                                            self._timeout_of({"timeout": timeout}))
        return [_results.model(m) for m in response.models]

    async def health(self, *, timeout: Optional[float] = None) -> bool:
        """Whether the daemon takes requests: False while it drains or is stuck. UnavailableError: nobody answers."""
        response: Any = await self._unary(self._health_method(), _connection.HealthRequest(),
                                          self._timeout_of({"timeout": timeout}))
        return bool(response.value == _connection.SERVING)

    async def close(self) -> None:
        """Cancels what still runs."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _default_model(self) -> str:
        if self._model is None:
            served = await self._unary(self._stub.ListModels, pb.ListModelsRequest(), self._timeout)
            self._model = self._first_of(served)
        return self._model

    async def _ask(self, method: Callable[..., Awaitable[T]], request: Any, timeout: Optional[float]) -> T:
        """Of the request's model, or the default one."""
        request.model = request.model or await self._default_model()
        return await self._unary(method, request, timeout)

    async def _unary(self, method: Callable[..., Awaitable[T]], request: object, timeout: Optional[float]) -> T:
        clock = _connection.Clock(timeout)
        attempt = 1
        while True:
            try:
                return await method(request, timeout=clock.remaining(), metadata=self._settings.metadata())
            except grpc.RpcError as rpc_error:
                error: AcuityError = from_rpc_error(rpc_error)
            wait = self._settings.retry.delay(error, attempt, clock.remaining())
            if wait is None:
                raise error
            await asyncio.sleep(wait)
            attempt += 1
