"""What Client and AsyncClient have in common: how they are made."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Optional, Union

from acuity import _requests
from acuity._connection import HEALTH_METHOD, HealthRequest, HealthResponse, Pem, Retry, Settings
from acuity.errors import NotFoundError
from acuity.v1 import acuity_pb2 as pb
from acuity.v1 import acuity_pb2_grpc


class BaseClient:
    # Those of grpc or of grpc.aio.
    _insecure_channel: ClassVar[Callable[..., Any]]
    _secure_channel: ClassVar[Callable[..., Any]]

    def __init__(self, address: str = "127.0.0.1:8700", *, model: Optional[str] = None,
                 timeout: Optional[float] = None, tls: Optional[bool] = None,
                 root_certificates: Optional[Pem] = None, client_certificate: Optional[Pem] = None,
                 client_key: Optional[Pem] = None, server_name: Optional[str] = None,
                 token: Union[str, Callable[[], str], None] = None, allow_plaintext_token: bool = False,
                 retry: Retry = Retry()) -> None:
        """model: the default of every call; None: the first that the daemon lists. timeout: seconds for each call,
        retries included; None: no limit. TLS is on with tls=True (the system's root certificates) or when any of the
        certificates is given; certificates and keys are PEM bytes or paths. token: sent as `authorization: Bearer`; a
        function is asked before each call. Errors are those of acuity.errors.
        """
        self._settings = settings = Settings(address, tls, root_certificates, client_certificate, client_key,
                                             server_name, token, allow_plaintext_token, retry)
        self._model = model
        self._timeout = _requests.make_timeout(timeout)
        credentials = settings.credentials()
        self._channel = (self._insecure_channel(address, settings.options()) if credentials is None else
                         self._secure_channel(address, credentials, settings.options()))
        self._stub: Any = acuity_pb2_grpc.AcuityStub(self._channel)  # type: ignore[no-untyped-call]

    def _timeout_of(self, options: Any) -> Optional[float]:
        """Takes `timeout` out of the options; the client's where it is not given."""
        timeout = _requests.make_timeout(options.pop("timeout", None))
        return self._timeout if timeout is None else timeout

    def _health_method(self) -> Any:
        return self._channel.unary_unary(HEALTH_METHOD, request_serializer=HealthRequest.SerializeToString,
                                         response_deserializer=HealthResponse.FromString)

    @staticmethod
    def _first_of(served: pb.ListModelsResponse) -> str:
        if not served.models:
            raise NotFoundError("NOT_FOUND", "model: the daemon serves none")
        return served.models[0].name
