"""The control listener: the administration over HTTP, on Starlette.

One table of routes says which verb and path does what; OpenAPI and the documentation page are
written from it. Every request passes the same three checks: its Host header is ours (against
DNS rebinding), its token is known, its body is small. The pages about the listener itself need
no token. Whether its principal may do the thing is
decided by the administration itself, on the operation and not on the path.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from salver import __version__
from salver.control.administration import (
    Administration,
    DeployRequest,
    LocalAdministration,
    Registered,
    ServerStatus,
    TokenRequest,
)
from salver.control.repository import RepositoryModel, load, loaded, repository_index, unload
from salver.control.waiting import Watch
from salver.protocol.errors import SalverError
from salver.protocol.openapi import describe_routes, documentation_page
from salver.protocol.tables import DeploymentSpec, TokenRecord, VersionManifest
from salver.registry.catalog import ModelSummary
from salver.registry.draft import VersionDraft
from salver.registry.isolations import IsolatedVersion
from salver.security.access import Operation, Principal
from salver.security.binding import allowed_host
from salver.security.guessing import TooManyGuessesError
from salver.security.tokens import MintedToken
from salver.storage.journal import ChainCheck, JournalRecord
from salver.telemetry.logs import log_event

__all__ = ["ControlRoute", "control_app"]

_REPOSITORY: Final = "/v2/repository/"
_BODY_LIMIT: Final = 16 * 2**20
_TITLE: Final = "Salver control listener"
_MOST_RECORDS: Final = 1000


class _Call(NamedTuple):
    """One request, decoded: its path and query parameters and its body."""

    params: dict[str, str]
    query: dict[str, str]
    body: Any


class ControlRoute(NamedTuple):
    """One path and verb of the control listener."""

    method: str
    template: str
    operation: Operation | None
    """What the administration will require; here for people and for OpenAPI."""
    act: Callable[[Administration, _Call], Any]
    """Carries the action out; runs in a thread, may block, though not for long: threads are few."""
    summary: str
    request: Any = None
    response: Any = None
    then: Callable[[Watch, Any], Awaitable[Any]] | None = None
    """Waits for what the action has begun and gives the answer; needs no thread."""


ROUTES: Final = (
    ControlRoute("GET", "/v1/status", Operation.READ, lambda admin, _: admin.status(), "State", None, ServerStatus),
    ControlRoute(
        "GET",
        "/v1/models",
        Operation.READ,
        lambda admin, _: admin.models(),
        "All models",
        None,
        tuple[ModelSummary, ...],
    ),
    ControlRoute(
        "GET",
        "/v1/models/{model}",
        Operation.READ,
        lambda admin, call: admin.versions(call.params["model"]),
        "All versions of a model",
        None,
        tuple[VersionManifest, ...],
    ),
    ControlRoute(
        "POST",
        "/v1/versions",
        Operation.REGISTER,
        lambda admin, call: admin.register(call.body),
        "Register a version whose blobs are stored",
        VersionDraft,
        Registered,
    ),
    ControlRoute(
        "POST",
        "/v1/deployments",
        Operation.DEPLOY,
        lambda admin, call: admin.deploy(call.body),
        "Deploy a version to an endpoint",
        DeployRequest,
        DeploymentSpec,
    ),
    ControlRoute(
        "DELETE",
        "/v1/deployments/{endpoint}",
        Operation.DEPLOY,
        lambda admin, call: admin.undeploy(call.params["endpoint"]),
        "Remove an endpoint",
        None,
        DeploymentSpec,
    ),
    ControlRoute(
        "GET",
        "/v1/isolated",
        Operation.READ,
        lambda admin, _: admin.isolated(),
        "Versions that crashed or hung a server process",
        None,
        tuple[IsolatedVersion, ...],
    ),
    ControlRoute(
        "DELETE",
        "/v1/isolated/{reference}",
        Operation.DEPLOY,
        lambda admin, call: admin.end_isolation(call.params["reference"]),
        "End the isolation of NAME@VERSION",
        None,
        IsolatedVersion,
    ),
    ControlRoute(
        "GET",
        "/v1/tokens",
        Operation.READ_TOKENS,
        lambda admin, _: admin.tokens(),
        "All tokens",
        None,
        tuple[TokenRecord, ...],
    ),
    ControlRoute(
        "POST",
        "/v1/tokens",
        Operation.CREATE_TOKEN,
        lambda admin, call: admin.create_token(call.body),
        "Make a token",
        TokenRequest,
        MintedToken,
    ),
    ControlRoute(
        "DELETE",
        "/v1/tokens/{token}",
        Operation.REVOKE_TOKEN,
        lambda admin, call: admin.revoke_token(call.params["token"]),
        "Revoke a token",
        None,
        TokenRecord,
    ),
    ControlRoute(
        "GET",
        "/v1/audit",
        Operation.READ_AUDIT,
        lambda admin, call: admin.audit(_whole(call, "limit", 100, _MOST_RECORDS), _whole(call, "after", 0, 2**53)),
        "Records of the audit journal",
        None,
        tuple[JournalRecord, ...],
    ),
    ControlRoute(
        "GET",
        "/v1/audit/verification",
        Operation.READ_AUDIT,
        lambda admin, _: admin.verify_audit(),
        "Check the chain",
        None,
        ChainCheck,
    ),
    ControlRoute(
        "POST",
        "/v2/repository/index",
        Operation.READ,
        lambda admin, call: repository_index(admin, call.body),
        "All endpoints, and registered models that none serves, in the Open Inference Protocol",
        None,
        list[RepositoryModel],
    ),
    ControlRoute(
        "POST",
        "/v2/repository/{repository}/index",
        Operation.READ,
        lambda admin, call: repository_index(admin, call.body),
        "The same: there is one repository, whatever it is called",
        None,
        list[RepositoryModel],
    ),
    ControlRoute(
        "POST",
        "/v2/repository/models/{model}/load",
        Operation.DEPLOY,
        lambda admin, call: load(admin, call.params["model"], call.body),
        "Deploy the highest release of an endpoint's model and wait until it serves",
        then=loaded,
    ),
    ControlRoute(
        "POST",
        "/v2/repository/models/{model}/unload",
        Operation.DEPLOY,
        lambda admin, call: unload(admin, call.params["model"]),
        "Remove an endpoint",
    ),
)


_Page = Callable[[Request], Awaitable[Response]]
Authenticate = Callable[[str | None, str], Principal | None]
"""From the address of a client, None for one on this machine's Unix socket, and its token to whose it is."""


def control_app(
    administration: LocalAdministration,
    authenticate: Authenticate,
    bound_host: str,
    watch: Watch,
    *,
    repository_moved: bool = False,
) -> Starlette:
    """The control listener's application; a repository that has moved is there for the Unix socket alone."""

    def acting(route: ControlRoute) -> _Page:
        async def act(request: Request) -> Response:
            if repository_moved and route.template.startswith(_REPOSITORY) and request.client is not None:
                raise SalverError("NOT_FOUND", "the repository is not here", "ask the data listener")
            principal = _principal(request, authenticate)
            call = _Call(dict(request.path_params), dict(request.query_params), await _body(request, route.request))
            admin = administration.as_principal(principal)
            if route.then is None:
                return _json(await run_in_threadpool(route.act, admin, call))
            return _json(await _act_and_wait(request, route, watch, admin, call))

        return act

    async def live(_: Request) -> Response:
        return _json({"live": True})

    async def openapi(_: Request) -> Response:
        return _json(describe_routes(_TITLE, __version__, ROUTES))

    async def docs(_: Request) -> Response:
        return HTMLResponse(documentation_page(_TITLE, __version__, ROUTES))

    def answered(page: _Page) -> _Page:
        return _answered(page, bound_host)

    routes = [Route(route.template, answered(acting(route)), methods=[route.method]) for route in ROUTES]
    pages = {"/v2/health/live": live, "/openapi.json": openapi, "/docs": docs}
    routes += [Route(path, answered(page), methods=["GET"]) for path, page in pages.items()]
    unknown = functools.partial(_unknown, bound_host)
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    app.router.redirect_slashes = False
    return app


def _answered(page: _Page, bound_host: str) -> _Page:
    """`page` with the check of the Host header in front, and refusals in words behind it."""

    async def answer(request: Request) -> Response:
        try:
            _check_host(request, bound_host)
            return await page(request)
        except SalverError as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer, without details
            log_event("fault", level=logging.ERROR, error=error)
            return _refusal(SalverError("INTERNAL", "the request met a fault of this server"))

    return answer


async def _unknown(bound_host: str, request: Request, error: Exception) -> Response:
    """What no route takes, refused like all else."""
    code = "METHOD_NOT_ALLOWED" if getattr(error, "status_code", 404) == 405 else "NOT_FOUND"
    what = SalverError(code, f"there is no {request.method[:20]} {request.url.path[:200]}", "see /docs")

    async def refuse(_: Request) -> Response:
        raise what

    response = await _answered(refuse, bound_host)(request)
    response.headers.update(getattr(error, "headers", None) or {})  # Allow
    return response


def _check_host(request: Request, bound_host: str) -> None:
    host = request.headers.get("host", "")
    # The Unix socket's clients say localhost, which no page of another site can.
    if not allowed_host(host, bound_host, ("localhost",)):
        raise SalverError("MISDIRECTED_HOST", f"the Host header {host[:80]!r} is none of this server's names")


async def _act_and_wait(request: Request, route: ControlRoute, watch: Watch, admin: Administration, call: _Call) -> Any:
    """Begin in a thread, wait without one; QUEUE_FULL before anything is begun where too many wait."""
    assert route.then is not None
    with watch.place():
        begun = await run_in_threadpool(route.act, admin, call)
        return await _unless_gone(request, route.then(watch, begun))


async def _unless_gone(request: Request, waiting: Awaitable[Any]) -> Any:
    """What `waiting` gives; given up, raising ClientDisconnect, when nobody waits for it any more."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    given, left = asyncio.ensure_future(waiting), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((given, left), return_when=asyncio.FIRST_COMPLETED)
        if not given.done():
            raise ClientDisconnect
        return given.result()
    finally:
        given.cancel()
        left.cancel()


def _principal(request: Request, authenticate: Authenticate) -> Principal:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    peer = request.client.host if request.client else None
    principal = authenticate(peer, token.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        raise SalverError(
            "UNAUTHENTICATED",
            "no valid token came with the request",
            "send Authorization: Bearer TOKEN; the first one is in the file admin.token of the home",
        )
    return principal


async def _body(request: Request, kind: Any) -> Any:
    too_large = SalverError("BODY_TOO_LARGE", f"the body exceeds {_BODY_LIMIT} bytes")
    if int(request.headers.get("content-length", "0")) > _BODY_LIMIT:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise too_large
    if not body and kind is None:
        return None
    try:
        return msgspec.json.decode(body, type=Any if kind is None else kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_JSON", f"the body is not what this route takes: {error}", "see /docs") from None
    except RecursionError:
        raise SalverError("INVALID_JSON", "the JSON is nested too deeply") from None


def _whole(call: _Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 18 and int(text) <= most):
        raise SalverError("INVALID_PARAMETER", f"{name} is {text[:40]!r}", f"use a whole number up to {most}")
    return int(text)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _refusal(error: SalverError) -> Response:
    response = _json(
        {"error": str(error), "code": error.code, "message": error.message, "remedy": error.remedy}, error.http
    )
    response.headers["x-salver-error"] = error.code
    if isinstance(error, TooManyGuessesError):
        response.headers["retry-after"] = str(error.retry_after_s)
    elif error.code == "QUEUE_FULL":
        response.headers["retry-after"] = "1"
    if error.code == "UNAUTHENTICATED":
        response.headers["www-authenticate"] = "Bearer"
    return response
