"""What a call can raise: one tree under AcuityError, one class for each status that a caller handles differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request that the daemon refused, as in `sampling.temperature`."""

    field: str
    description: str


class AcuityError(Exception):
    """A call that failed.

    code: the gRPC status, as in "INVALID_ARGUMENT". reason: the daemon's, as in "QUEUE_FULL"; "" if the error does not
    come from the daemon. retry_delay: seconds after which the daemon says that it may work, if it does.
    """

    def __init__(self, code: str, message: str, *, reason: str = "",
                 field_violations: tuple[FieldViolation, ...] = (),
                 retry_delay: Optional[float] = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.field_violations = field_violations
        self.retry_delay = retry_delay


class InvalidArgumentError(AcuityError):
    """A field is wrong; `field_violations` says which."""


class NotFoundError(AcuityError):
    """No such model, or no such service."""


class FailedPreconditionError(AcuityError):
    """The model cannot do that: a chat without a chat template."""


class UnauthenticatedError(AcuityError):
    """The bearer token is missing or wrong."""


class PermissionDeniedError(AcuityError):
    """The bearer token does not allow that."""


class ResourceExhaustedError(AcuityError):
    """A queue or a quota is full."""


class UnavailableError(AcuityError):
    """Nobody answers there, or the daemon drains."""


class DeadlineExceededError(AcuityError):
    """`timeout` passed."""


class CancelledError(AcuityError):
    """Cancelled, by this client or by the daemon."""


class InternalError(AcuityError):
    """Any other status: the daemon failed."""


_CLASSES: dict[str, type[AcuityError]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "OUT_OF_RANGE": InvalidArgumentError,
    "NOT_FOUND": NotFoundError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": CancelledError,
}


def make_error(code: str, message: str, details: Optional[bytes] = None) -> AcuityError:
    """The error of a status; `details` is a serialized google.rpc.Status."""
    reason, retry_delay = "", None
    violations: list[FieldViolation] = []
    status = status_pb2.Status()
    try:
        status.ParseFromString(details or b"")
    except DecodeError:
        status.Clear()  # a proxy's; the code and the message remain
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_delay = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
    return _CLASSES.get(code, InternalError)(code, message, reason=reason, field_violations=tuple(violations),
                                             retry_delay=retry_delay)


def from_rpc_error(error: grpc.RpcError) -> AcuityError:
    """The error of a call that grpc or grpc.aio ended."""
    call: Any = error  # every RpcError that a call raises is also a grpc.Call or a grpc.aio.AioRpcError
    details = None
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            details = value
    return make_error(call.code().name, call.details() or "", details)
