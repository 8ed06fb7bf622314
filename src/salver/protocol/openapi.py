"""OpenAPI 3.1 and a plain page, both written from a route table."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from salver.protocol.api_versions import API_VERSIONS, NOTICE_DAYS, Deprecation
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

    @property
    def deprecated(self) -> Deprecation | None:
        """That it will go, if it will."""


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
    if route.deprecated is not None:
        described["deprecated"] = True
        described["x-salver-sunset"] = route.deprecated.sunset.isoformat()
        if route.deprecated.instead:
            described["x-salver-instead"] = route.deprecated.instead
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
        f"<td>{html.escape(route.summary)}{_last_days(route)}</td>"
        f"<td>{html.escape(str(route.operation or 'anybody'))}</td></tr>"
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
<h2 id="api-versions">API versions</h2>
<p>Protocols have their versions in their paths. Salver's own interface is in version {API_VERSIONS[-1]}; the header
<code>X-Salver-Api-Version</code> says which one a client was written for, and one that is not answered is refused.
The answers of a route that will go have the headers <code>Deprecation</code>, <code>Sunset</code> and
<code>Link</code>; it stays for at least {NOTICE_DAYS} days after that begins.</p>
<h2>Errors</h2>
<p>Every error is <code>{{"error": "..."}}</code> with its code in the header <code>x-salver-error</code>.</p>
<table><tr><th>Code</th><th>Status</th><th>Meaning</th></tr>
{codes}
</table>
</html>
""".encode()


def _last_days(route: Described) -> str:
    gone = route.deprecated
    if gone is None:
        return ""
    instead = f"; use <code>{html.escape(gone.instead)}</code>" if gone.instead else ""
    return f" <strong>Deprecated: goes after {gone.sunset}{instead}</strong>"
