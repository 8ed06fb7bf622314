"""Load and unload of models on the data listeners, where the operator has asked for it.

The server process changes nothing itself: it hands the request with its token to the
controller, over a private Unix socket, and hands the answer back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from salver.gateway.exchange import Exchange
from salver.gateway.routes import HttpRoute, Stray
from salver.protocol.errors import SalverError
from salver.security.access import Operation

__all__ = ["REPOSITORY_STRAY", "ControlAnswer", "Controller", "ask_controller", "repository_routes"]

_TIMEOUT_S: Final = 150.0
REPOSITORY_STRAY: Final = Stray(
    re.compile(rb"/v2/repository/"),
    "it is on the control listener, and moves here with server.repository_on_data = true",
)
"""What is told where the operator has not asked for the repository on the data listener."""
_HANDED_BACK: Final = ("x-salver-error", "retry-after", "www-authenticate")


class Asking(Protocol):
    """Who asks: an `Exchange` or a gRPC call."""

    id: bytes

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """By name in lower case."""


class ControlAnswer(NamedTuple):
    """What the controller answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Controller = Callable[[str, bytes, Asking], Awaitable[ControlAnswer]]
"""Post a body to a path of the controller, on behalf of somebody; raises CONTROL_UNAVAILABLE."""


async def ask_controller(control_socket: str, path: str, body: bytes, asking: Asking) -> ControlAnswer:
    """See `Controller`."""
    import httpx2  # noqa: PLC0415 - only servers that forward need an HTTP client

    headers = {"x-request-id": asking.id.decode()}
    if b"authorization" in asking.headers:
        headers["authorization"] = asking.headers[b"authorization"].decode("latin-1")
    try:
        async with httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=control_socket), timeout=_TIMEOUT_S, base_url="http://localhost"
        ) as client:
            answer = await client.post(path, content=body, headers=headers)
    except httpx2.HTTPError:
        raise SalverError("CONTROL_UNAVAILABLE", "the controller does not answer", "try again shortly") from None
    return ControlAnswer(answer.status_code, answer.headers, answer.content)


def repository_routes(controller: Controller) -> list[HttpRoute]:
    """The model repository extension of the Open Inference Protocol, forwarded to the controller."""
    forward = partial(_forward_soon, controller)
    return [
        HttpRoute("POST", "/v2/repository/index", Operation.READ, forward, "All endpoints and undeployed models"),
        HttpRoute("POST", "/v2/repository/{repository}/index", Operation.READ, forward, "The same"),
        HttpRoute(
            "POST", "/v2/repository/models/{model}/load", Operation.DEPLOY, forward, "Deploy the highest release"
        ),
        HttpRoute("POST", "/v2/repository/models/{model}/unload", Operation.DEPLOY, forward, "Remove an endpoint"),
    ]


def _forward_soon(controller: Controller, exchange: Exchange) -> None:
    exchange.pending = asyncio.ensure_future(_forward(controller, exchange))


async def _forward(controller: Controller, exchange: Exchange) -> None:
    # Written anew from what was resolved: what the client wrote never reaches another reader.
    path = exchange.route.template.format_map({name: quote(value, safe="") for name, value in exchange.params.items()})
    try:
        answer = await controller(path, exchange.body, exchange)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        exchange.fail(error)
    else:
        told = [(name.encode(), answer.headers[name].encode()) for name in _HANDED_BACK if name in answer.headers]
        exchange.reply(answer.body, status=answer.status, headers=told)
