"""Load and unload of models on the data listener, where the operator has asked for it.

The server process changes nothing itself: it hands the request with its token to the
controller, over a private Unix socket, and hands the answer back.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final
from urllib.parse import quote

from salver.gateway.exchange import Exchange
from salver.gateway.routes import Route
from salver.protocol.errors import SalverError
from salver.security.access import Operation

__all__ = ["repository_routes"]

_TIMEOUT_S: Final = 150.0
_HANDED_BACK: Final = ("x-salver-error", "retry-after", "www-authenticate")


def repository_routes(control_socket: str) -> list[Route]:
    """The model repository extension of the Open Inference Protocol, forwarded to the controller."""
    forward = partial(_forward_soon, control_socket)
    return [
        Route("POST", "/v2/repository/index", Operation.READ, forward, "All endpoints and undeployed models"),
        Route("POST", "/v2/repository/models/{model}/load", Operation.DEPLOY, forward, "Deploy the highest release"),
        Route("POST", "/v2/repository/models/{model}/unload", Operation.DEPLOY, forward, "Remove an endpoint"),
    ]


def _forward_soon(control_socket: str, exchange: Exchange) -> None:
    exchange.pending = asyncio.ensure_future(_forward(control_socket, exchange))


async def _forward(control_socket: str, exchange: Exchange) -> None:
    import httpx2  # noqa: PLC0415 - only servers that forward need an HTTP client

    # Written anew from what was resolved: what the client wrote never reaches another reader.
    path = exchange.route.template.format_map({name: quote(value, safe="") for name, value in exchange.params.items()})
    headers = {"x-request-id": exchange.id.decode()}
    if b"authorization" in exchange.headers:
        headers["authorization"] = exchange.headers[b"authorization"].decode("latin-1")
    try:
        async with httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=control_socket), timeout=_TIMEOUT_S, base_url="http://localhost"
        ) as client:
            answer = await client.post(path, content=exchange.body, headers=headers)
    except httpx2.HTTPError:
        exchange.refuse(SalverError("CONTROL_UNAVAILABLE", "the controller does not answer", "try again shortly"))
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        exchange.fail(error)
    else:
        told = [(name.encode(), answer.headers[name].encode()) for name in _HANDED_BACK if name in answer.headers]
        exchange.reply(answer.content, status=answer.status_code, headers=told)
