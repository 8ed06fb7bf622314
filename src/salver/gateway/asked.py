"""A request as the gateway sees it, whatever it came in."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from salver.protocol.errors import SalverError
from salver.protocol.request import Response

__all__ = ["Asked"]


class Asked(Protocol):
    """What an `Exchange` of HTTP and a `Call` of gRPC have in common; see there."""

    lane: Any
    method: bytes
    target: bytes
    headers: Any
    """A mapping of bytes to bytes, which the one may change and the other may not."""
    params: Mapping[str, str]
    body: bytes
    body_bytes: int
    received_s: float
    id: bytes
    tenant: str
    client: str
    endpoint: str | None
    route: Any
    pending: Future[Any] | None
    response: Response | None
    answered: bool

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header to the answer, whatever that will be; REQUIRES a value without line breaks."""

    def refuse(
        self,
        error: SalverError,
        *,
        close: bool = False,
        counted: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer with an error of the catalogue."""

    def fail(self, error: BaseException, *, close: bool = False, counted: bool = False) -> None:
        """Answer with what was raised."""
