"""What the table of the control listener is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from salver.control.administration import LocalAdministration
    from salver.control.model_store import ModelStore
    from salver.control.uploads import Transfers
    from salver.control.waiting import Watch
    from salver.protocol.api_versions import Deprecation
    from salver.protocol.errors import SalverError
    from salver.security.access import Operation

__all__ = ["Call", "ControlRoute"]


class Call(NamedTuple):
    """One request, decoded: its path and query parameters and its body."""

    params: dict[str, str]
    query: dict[str, str]
    body: Any
    store: ModelStore | None = None
    """The artifacts that may be registered by a path; None where there is no such directory."""


class ControlRoute(NamedTuple):
    """One path and verb of the control listener."""

    method: str
    template: str
    operation: Operation | None
    """What the administration will require; here for people and for OpenAPI."""
    act: Callable[[LocalAdministration, Call], Any]
    """Carries the action out; runs in a thread, may block, though not for long: threads are few."""
    summary: str
    request: Any = None
    response: Any = None
    then: Callable[[Watch, Any], Awaitable[Any]] | None = None
    """Waits for what the action has begun and gives the answer; needs no thread."""
    refusal: Callable[[SalverError], dict[str, Any]] | None = None
    """How the protocol of this route writes errors, where it has a way of its own."""
    deprecated: Deprecation | None = None
    """That this route will go, and when."""
    followed: bool = False
    """Whether the action gives a `Followed`, for which more may be waited without a thread."""
    transfer: Callable[[Transfers, Request, Any], Awaitable[Response]] | None = None
    """Moves bytes for what the action has found, in place of JSON both ways; what is in the body is its own matter."""
