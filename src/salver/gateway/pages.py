"""The few other pages of the data listener: metrics, OpenAPI, and documentation to look at."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from salver import __version__
from salver.gateway.exchange import Exchange
from salver.gateway.routes import HttpRoute
from salver.protocol.openapi import describe_routes, documentation_page
from salver.security.access import Operation

__all__ = ["page_routes"]

_TITLE: Final = "Salver data listener"


MetricsText = Callable[[], tuple[bytes, str] | Awaitable[tuple[bytes, str]]]
"""The metrics and their media type, at once or when the other processes have told theirs."""


def page_routes(metrics_text: MetricsText, other_routes: list[HttpRoute]) -> list[HttpRoute]:
    """`/metrics`, `/openapi.json` and `/docs`, the latter two over all routes."""
    routes = list(other_routes)

    def metrics(exchange: Exchange) -> None:
        text = metrics_text()
        if isinstance(text, tuple):
            exchange.reply(text[0], content_type=text[1].encode())
        else:
            exchange.pending = asyncio.ensure_future(reply_soon(exchange, text))

    async def reply_soon(exchange: Exchange, coming: Awaitable[tuple[bytes, str]]) -> None:
        try:
            text, content_type = await coming
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            exchange.fail(error)
        else:
            exchange.reply(text, content_type=content_type.encode())

    # The routes do not change, and writing these takes thousands of times as long as an inference.
    @functools.cache
    def described() -> bytes:
        return msgspec.json.encode(describe_routes(_TITLE, __version__, routes))

    @functools.cache
    def page() -> bytes:
        return documentation_page(_TITLE, __version__, routes)

    def openapi(exchange: Exchange) -> None:
        exchange.reply(described())

    def docs(exchange: Exchange) -> None:
        exchange.reply(page(), content_type=b"text/html; charset=utf-8")

    routes += [
        HttpRoute("GET", "/metrics", Operation.PREDICT, metrics, "Metrics for Prometheus"),
        HttpRoute("GET", "/openapi.json", Operation.PREDICT, openapi, "This interface as OpenAPI"),
        HttpRoute("GET", "/docs", Operation.PREDICT, docs, "This interface for people"),
        # Where clients that came with another server of the protocol look for the same two.
        HttpRoute("GET", "/v2/docs", Operation.PREDICT, docs, "This interface for people"),
        HttpRoute("GET", "/v2/docs/dataplane.json", Operation.PREDICT, openapi, "This interface as OpenAPI"),
        HttpRoute("GET", "/swagger.json", Operation.PREDICT, openapi, "This interface as OpenAPI"),
    ]
    return routes
