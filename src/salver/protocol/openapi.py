"""OpenAPI 3.1 and a plain page, both written from a route table."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from salver.protocol.errors import CATALOGUE

__all__ = ["Described", "describe_routes", "documentation_page"]

_PARAMETER = re.compile(r"{(\w+)}")


class Described(Protocol):
    """What a route must say of itself to be documented."""

    @property
    def method(self) -> str:
        """The verb."""

    @property
    def template(self) -> str:
        """The path, with parameters in braces."""

    @property
    def summary(self) -> str:
        """One line for people."""

    @property
    def operation(self) -> Any:
        """What the caller must be allowed to do, or None."""

    @property
    def request(self) -> Any:
        """The type of a JSON body, or None."""

    @property
    def response(self) -> Any:
        """The type of the JSON answer, or None."""


def describe_routes(title: str, version: str, routes: Iterable[Described]) -> dict[str, Any]:
    """The routes of Salver `version` as an OpenAPI document."""
    table = list(routes)
    types = [kind for route in table for kind in (route.request, route.response) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": {
                **components,
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                    "description": "The code stands in the header x-salver-error: " + ", ".join(CATALOGUE),
                },
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Described, schema_of: dict[int, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{route.template}").strip("_")
    answer: dict[str, Any] = {"description": "OK"}
    if route.response is not None:
        answer["content"] = {"application/json": {"schema": schema_of[id(route.response)]}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    described: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "parameters": [
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
            for parameter in _PARAMETER.findall(route.template)
        ],
        "responses": {"200": answer, "default": {"description": "An error of the catalogue", "content": error}},
    }
    if route.operation is not None:
        described["security"] = [{"token": []}]
        described["x-salver-operation"] = str(route.operation)
    if route.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[id(route.request)]}},
        }
    return described


def documentation_page(title: str, version: str, routes: Iterable[Described]) -> bytes:
    """The same as one page of HTML without scripts."""
    rows = "\n".join(
        f"<tr><td><code>{route.method}</code></td><td><code>{html.escape(route.template)}</code></td>"
        f"<td>{html.escape(route.summary)}</td><td>{html.escape(str(route.operation or 'anybody'))}</td></tr>"
        for route in routes
    )
    codes = "\n".join(
        f"<tr><td><code>{code}</code></td><td>{row.http}</td><td>{html.escape(row.meaning)}</td></tr>"
        for code, row in CATALOGUE.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.25rem .75rem;border-bottom:1px solid #ddd}}
</style>
<h1>{html.escape(title)}</h1>
<p>Salver {html.escape(version)}. The same as <a href="openapi.json">OpenAPI</a>.</p>
<table><tr><th>Verb</th><th>Path</th><th>What it does</th><th>Who may</th></tr>
{rows}
</table>
<h2>Errors</h2>
<p>Every error is <code>{{"error": "..."}}</code> with its code in the header <code>x-salver-error</code>.</p>
<table><tr><th>Code</th><th>Status</th><th>Meaning</th></tr>
{codes}
</table>
</html>
""".encode()
