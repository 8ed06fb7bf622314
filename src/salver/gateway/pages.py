"""The few other pages of the data listener: metrics, OpenAPI, and documentation to look at."""

from __future__ import annotations

from collections.abc import Callable

from salver.gateway.exchange import Exchange
from salver.gateway.routes import Route
from salver.protocol.openapi import describe_routes, documentation_page
from salver.security.access import Operation

__all__ = ["page_routes"]


def page_routes(metrics_text: Callable[[], tuple[bytes, str]], other_routes: list[Route]) -> list[Route]:
    """`/metrics`, `/openapi.json` and `/docs`, the latter two over all routes."""
    routes = list(other_routes)

    def metrics(exchange: Exchange) -> None:
        text, content_type = metrics_text()
        exchange.reply(text, content_type=content_type.encode())

    def openapi(exchange: Exchange) -> None:
        exchange.reply_json(describe_routes("Salver data listener", routes))

    def docs(exchange: Exchange) -> None:
        exchange.reply(documentation_page("Salver data listener", routes), content_type=b"text/html; charset=utf-8")

    routes += [
        Route("GET", "/metrics", Operation.PREDICT, metrics, "Metrics for Prometheus"),
        Route("GET", "/openapi.json", Operation.PREDICT, openapi, "This interface as OpenAPI"),
        Route("GET", "/docs", Operation.PREDICT, docs, "This interface for people"),
    ]
    return routes
