"""gRPC by grpcio, blocking and on an event loop. Only this file knows grpcio; the extra `grpc` brings it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final

from salver.client.address import Address
from salver.client.dialect import Question, Reply
from salver.client.errors import CallError
from salver.protocol.errors import SalverError

try:
    import grpc
    import grpc.aio
except ImportError:
    raise SalverError(
        "UNSUPPORTED", "gRPC needs grpcio, which is not installed", "install the extra: pip install 'salver[grpc]'"
    ) from None

__all__ = ["AsyncGrpcTransport", "GrpcTransport"]

_LARGEST_BYTES: Final = 2**31 - 1
_OPTIONS: Final = (
    ("grpc.max_send_message_length", _LARGEST_BYTES),  # the server has limits, and says so
    ("grpc.max_receive_message_length", _LARGEST_BYTES),
    # Retries have waits of their own; a channel that rests for seconds would fail them all unasked.
    # The least of its waits is left alone: to grpcio that is also the time a connection may take.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # two clients of one server are two
)


def _credentials(address: Address, verify: ssl.SSLContext | bool) -> Any:
    """What a channel is checked against; None for one in clear. Raises INVALID_SETTING for what grpcio cannot."""
    if not address.secure:
        return None
    if verify is True:
        return grpc.ssl_channel_credentials()
    certificates = verify.get_ca_certs(binary_form=True) if isinstance(verify, ssl.SSLContext) else []
    if not certificates:
        raise SalverError(
            "INVALID_SETTING",
            "gRPC checks certificates against authorities that are named, and always checks them",
            "pass verify=ssl.create_default_context(cafile=...)",
        )
    return grpc.ssl_channel_credentials("".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode())


def _joined(question: Question) -> bytes:
    return b"".join(question.body)


def _wait(left_s: float) -> float | None:
    return left_s if left_s < float("inf") else None


def _reply(body: bytes, code: Any, details: str | None, *metadata: Iterable[tuple[str, Any]] | None) -> Reply:
    headers = {name: value for pairs in metadata for name, value in pairs or () if isinstance(value, str)}
    return Reply(code.value[0], headers, body, details or "")


class GrpcTransport:
    """See `Transport`: one channel, which threads share. A call that is interrupted is cancelled."""

    def __init__(self, address: Address, verify: ssl.SSLContext | bool) -> None:
        credentials = _credentials(address, verify)
        self._channel = (
            grpc.insecure_channel(address.authority, _OPTIONS)
            if credentials is None
            else grpc.secure_channel(address.authority, credentials, _OPTIONS)
        )
        self._methods: dict[str, Any] = {}
        self._closed = False

    def exchange(self, question: Question, left_s: float) -> Reply:
        """Make a call."""
        if self._closed:
            raise SalverError("CONFLICT", "the client is closed", "make another one")
        method = self._methods.get(question.target)
        if method is None:
            method = self._methods[question.target] = self._channel.unary_unary(question.target)
        try:
            body, call = method.with_call(_joined(question), timeout=_wait(left_s), metadata=question.headers)
        except grpc.RpcError as error:
            failed: Any = error
            return _reply(b"", failed.code(), failed.details(), failed.initial_metadata(), failed.trailing_metadata())
        except ValueError as error:
            if not self._closed:
                raise
            # Closed by another thread just now; grpcio says no more than this.
            raise CallError("CONFLICT", f"the client is closed: {error}", may_have_run=False) from None
        return _reply(body, call.code(), "", call.initial_metadata(), call.trailing_metadata())

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._closed = True
        self._channel.close()


class AsyncGrpcTransport:
    """See `AsyncTransport`. A call whose task is cancelled is reset at the server."""

    def __init__(self, address: Address, verify: ssl.SSLContext | bool) -> None:
        self._address = address
        self._credentials = _credentials(address, verify)
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._closed = False

    async def exchange(self, question: Question, left_s: float) -> Reply:
        """Make a call."""
        if self._closed:
            raise SalverError("CONFLICT", "the client is closed", "make another one")
        method = self._methods.get(question.target)
        if method is None:
            method = self._methods[question.target] = self._open().unary_unary(question.target)
        call = method(_joined(question), timeout=_wait(left_s), metadata=question.headers)
        try:
            body = await call
        except grpc.aio.AioRpcError as error:
            return _reply(b"", error.code(), error.details(), error.initial_metadata(), error.trailing_metadata())
        return _reply(body, grpc.StatusCode.OK, "", await call.initial_metadata(), await call.trailing_metadata())

    def _open(self) -> Any:
        # Not before there is a loop to belong to.
        if self._channel is None:
            target = self._address.authority
            self._channel = (
                grpc.aio.insecure_channel(target, _OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(target, self._credentials, _OPTIONS)
            )
        return self._channel

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()
