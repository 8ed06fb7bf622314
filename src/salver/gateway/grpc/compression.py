"""Messages that came compressed: small ones are undone at once, others off the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from salver.gateway.negotiation import OFFLOAD_BYTES, decompress
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.grpc.call import Call

__all__ = ["inflate", "open_compressed"]

_CODINGS: Final = frozenset({b"identity", b"gzip", b"deflate"})


def open_compressed(open_: Callable[[Call], None], call: Call) -> None:
    """Decompress the message of a unary call, then `open_` it; raises SalverError."""
    body, call.body = call.body, b""
    if len(body) <= OFFLOAD_BYTES:
        _count(call, _inflated(call, body))
        open_(call)
        return
    call.pending = plain = asyncio.get_running_loop().run_in_executor(None, _inflated, call, body)
    plain.add_done_callback(functools.partial(_opened, open_, call))


def _opened(open_: Callable[[Call], None], call: Call, plain: asyncio.Future[bytes]) -> None:
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


def _count(call: Call, body: bytes) -> None:
    """The plain message counts in place of the compressed one."""
    gateway = call.lane.gateway
    gateway.inflight_bytes += len(body) - call.body_bytes
    call.body_bytes = len(body)
    gateway.require_room()
    call.body = body


async def inflate(call: Call, message: bytes) -> bytes:
    """One message of a stream; raises SalverError."""
    if len(message) <= OFFLOAD_BYTES:
        return _inflated(call, message)
    return await asyncio.get_running_loop().run_in_executor(None, _inflated, call, message)


def _inflated(call: Call, message: bytes) -> bytes:
    coding = call.headers.get(b"grpc-encoding", b"identity")
    if coding not in _CODINGS:
        raise SalverError(
            "UNSUPPORTED",
            f"grpc-encoding {coding[:40].decode('latin-1')!r} is not understood",
            "send gzip, deflate or identity",
        )
    return decompress(message, coding, call.lane.gateway.limits.body_bytes)
