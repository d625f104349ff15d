"""What the two clients share: the channel's settings, the bearer token, the retry policy."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Union

import grpc
from google.protobuf import wrappers_pb2

from acuity.errors import AcuityError, ResourceExhaustedError, UnavailableError

# A certificate or a key: PEM bytes, or the path of a PEM file.
Pem = Union[bytes, str, "os.PathLike[str]"]

# grpc.health.v1, without its generated code: HealthCheckRequest {string service = 1} and HealthCheckResponse
# {enum status = 1} are StringValue and UInt32Value on the wire.
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
HealthRequest, HealthResponse = wrappers_pb2.StringValue, wrappers_pb2.UInt32Value
SERVING = 1

# An attention report of every head of a large model takes megabytes; the daemon's requests stay below 4.
_MAX_RECEIVE_BYTES = 64 << 20
_RECONNECT_MS = 200  # after a refused connection; grpc's own second outlasts a restart


@dataclass(frozen=True)
class Retry:
    """When a call that has brought nothing yet is tried again: on UNAVAILABLE, and on RESOURCE_EXHAUSTED if the daemon
    says when. Waits max(what the daemon says, first_delay * 2^tries) * (1 to 1.5), in seconds; gives up after `attempts`
    calls, or where the wait would pass max_delay or the call's timeout. Retry(attempts=1) never retries."""

    attempts: int = 4
    first_delay: float = 0.1
    max_delay: float = 10.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"attempts: {self.attempts!r} is not a whole number of at least 1")
        for name in ("first_delay", "max_delay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not at least 0 seconds")

    def delay(self, error: AcuityError, attempt: int, remaining: Optional[float]) -> Optional[float]:
        """Seconds to wait after the call number `attempt` (from 1) failed; None to give up."""
        if attempt >= self.attempts or not isinstance(error, (UnavailableError, ResourceExhaustedError)):
            return None
        if isinstance(error, ResourceExhaustedError) and error.retry_delay is None:
            return None  # too large, or a quota: waiting does not help
        wait = max(error.retry_delay or 0.0, self.first_delay * 2.0 ** (attempt - 1)) * random.uniform(1, 1.5)
        if wait > self.max_delay or (remaining is not None and wait >= remaining):
            return None
        return wait


class Clock:
    """What is left of one call's timeout."""

    def __init__(self, timeout: Optional[float]) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> Optional[float]:
        return None if self._end is None else max(0.0, self._end - time.monotonic())


@dataclass
class Settings:
    """A client's constructor arguments, checked."""

    address: str
    tls: Optional[bool] = None
    root_certificates: Optional[Pem] = None
    client_certificate: Optional[Pem] = None
    client_key: Optional[Pem] = None
    server_name: Optional[str] = None
    token: Union[str, Callable[[], str], None] = None
    allow_plaintext_token: bool = False
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or not self.address:
            raise TypeError(f"address: {self.address!r} is not HOST:PORT or unix:PATH")
        if not isinstance(self.retry, Retry):
            raise TypeError(f"retry: {self.retry!r} is not an acuity.Retry")
        given = [name for name in ("root_certificates", "client_certificate", "client_key", "server_name")
                 if getattr(self, name) is not None]
        if self.tls is None:
            self.tls = bool(given)
        if given and not self.tls:
            raise ValueError(f"{given[0]}: needs tls=True")
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key: one needs the other")
        if self.token is not None and not self.tls and not self.allow_plaintext_token and not _is_local(self.address):
            raise ValueError(f"token: it would go to {self.address} in clear text; use tls=True, or "
                             "allow_plaintext_token=True where something else encrypts the connection")
        if not callable(self.token):
            self.metadata()

    def metadata(self) -> Sequence[tuple[str, str]]:
        token = self.token() if callable(self.token) else self.token
        if token is None:
            return ()
        if not isinstance(token, str) or not token or not all(33 <= ord(c) < 127 for c in token):
            raise ValueError("token: it is empty or has characters other than visible ASCII")  # do not print it
        return (("authorization", f"Bearer {token}"),)

    def credentials(self) -> Optional[grpc.ChannelCredentials]:
        """None: plain text."""
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(
            _pem("root_certificates", self.root_certificates), _pem("client_key", self.client_key),
            _pem("client_certificate", self.client_certificate))

    def options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
                                          ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS)]
        if self.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        return options


def _is_local(address: str) -> bool:
    return address.startswith(("unix:", "localhost:", "127.", "[::1]:"))


def _pem(name: str, value: Optional[Pem]) -> Optional[bytes]:
    if value is None:
        return None
    if isinstance(value, bytes):
        data = value
    else:
        try:
            with open(value, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"{name}: cannot read {os.fspath(value)}: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise ValueError(f"{name}: it is not PEM")
    return data
