"""Messages that came compressed: small ones are undone at once, others off the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from salver.gateway.asked import Asked
from salver.gateway.negotiation import OFFLOAD_BYTES, decompress
from salver.protocol.errors import SalverError

__all__ = ["inflate", "is_compressed", "open_compressed"]

AnyAsked = TypeVar("AnyAsked", bound=Asked)

_CODINGS: Final = frozenset({b"identity", b"gzip", b"deflate"})
_COMPRESSED: Final = 1


def is_compressed(flag: int, headers: Mapping[bytes, bytes]) -> bool:
    """What the first byte of a message says; raises BAD_MESSAGE for what it cannot say in a call with such headers."""
    if not flag:
        return False
    if flag != _COMPRESSED:
        raise SalverError("BAD_MESSAGE", f"a message begins with {flag}, which says neither plain nor compressed")
    if b"grpc-encoding" not in headers:
        raise SalverError("BAD_MESSAGE", "a message is compressed, and no grpc-encoding says how")
    return True


def open_compressed(open_: Callable[[AnyAsked], None], call: AnyAsked) -> None:
    """Decompress the message of a unary call, then `open_` it; raises SalverError."""
    body, call.body = call.body, b""
    if len(body) <= OFFLOAD_BYTES:
        _count(call, _inflated(call, body))
        open_(call)
        return
    call.pending = plain = asyncio.get_running_loop().run_in_executor(None, _inflated, call, body)
    plain.add_done_callback(functools.partial(_opened, open_, call))


def _opened(open_: Callable[[AnyAsked], None], call: AnyAsked, plain: asyncio.Future[bytes]) -> None:
    if plain.cancelled():
        return
    problem = plain.exception()
    if call.answered:
        return
    try:
        if problem is None:
            _count(call, plain.result())
            open_(call)
        else:
            call.fail(problem)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        call.fail(error)


def _count(call: Asked, body: bytes) -> None:
    """The plain message counts in place of the compressed one."""
    gateway = call.lane.gateway
    gateway.inflight_bytes += len(body) - call.body_bytes
    call.body_bytes = len(body)
    gateway.require_room()
    call.body = body


async def inflate(call: Asked, message: bytes) -> bytes:
    """One message of a stream; raises SalverError."""
    if len(message) <= OFFLOAD_BYTES:
        return _inflated(call, message)
    return await asyncio.get_running_loop().run_in_executor(None, _inflated, call, message)


def _inflated(call: Asked, message: bytes) -> bytes:
    coding = call.headers[b"grpc-encoding"]
    if coding not in _CODINGS:
        raise SalverError(
            "UNSUPPORTED",
            f"grpc-encoding {coding[:40].decode('latin-1')!r} is not understood",
            "send gzip, deflate or identity",
        )
    return decompress(message, coding, call.lane.gateway.limits.body_bytes)
