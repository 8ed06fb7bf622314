"""The control listener: the administration over HTTP, on Starlette.

Every request passes the same checks: its Host header is ours (against DNS rebinding), the version
of the interface it was written for is one of ours, its token is known, its body is small. The pages
about the listener itself need no token. Whether its principal may do the thing is decided on the
operation and not on the path, for each route and once more by the administration.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from salver import __version__
from salver.control.administration import LocalAdministration
from salver.control.model_store import ModelStore
from salver.control.occasions import REQUEST_ID_HEADER, WHY_HEADER, request_id, why_said
from salver.control.places import Turns
from salver.control.route import Call, ControlRoute
from salver.control.routes import ROUTES
from salver.control.torchserve import Accepted
from salver.control.uploads import Transfers
from salver.control.waiting import Followed, Followers, Watch, follow
from salver.protocol.api_versions import API_VERSION_HEADER, check_api_version
from salver.protocol.errors import SalverError
from salver.protocol.openapi import describe_routes, documentation_page
from salver.security.access import Principal, require
from salver.security.binding import allowed_host
from salver.storage.journal import occasion
from salver.telemetry.logs import log_event

__all__ = ["control_app"]

_REPOSITORY: Final = "/v2/repository/"
_PREDICTIONS: Final = re.compile(r"/v2/models(/|\Z)|/v1/(models/.*:|embeddings)|/predictions/|/invocations\Z")
"""Paths of the other listener that are asked for here by mistake."""
_BODY_LIMIT: Final = 16 * 2**20
_SOON: Final = ("QUEUE_FULL", "CONTROL_UNAVAILABLE")
"""What a second may end, where nothing says how long it takes."""
_TITLE: Final = "Salver control listener"

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
    store: ModelStore | None = None,
    transfers: Transfers | None = None,
) -> Starlette:
    """The control listener's application; a repository that has moved is there for the Unix socket alone."""
    moving = transfers or Transfers()
    followers = Followers(lambda: administration.records.journal.head()[0])
    turns = Turns()

    def acting(route: ControlRoute) -> _Page:
        async def act(request: Request) -> Response:
            if repository_moved and route.template.startswith(_REPOSITORY) and request.client is not None:
                raise SalverError("NOT_FOUND", "the repository is not here", "ask the data listener")
            principal = _principal(request, authenticate)
            if route.operation is not None:
                # Once more by the administration; but no route looks anything up for those it is not for.
                require(principal, route.operation)
            body = await _body(request, route.request) if route.transfer is None else None
            call = Call(dict(request.path_params), dict(request.query_params), body, store)
            # Only the owner of the home can open the Unix socket.
            admin = administration.on_behalf_of(principal, on_this_machine=request.client is None)

            async def carried_out() -> Any:
                async with turns.of(principal):
                    return await run_in_threadpool(route.act, admin, call)

            with occasion(request.state.id, why_said(request.headers.get(WHY_HEADER, ""))):  # threads inherit it
                if route.transfer is not None:
                    return await route.transfer(moving, request, await carried_out())
                if route.followed:
                    return _json(await _follow(request, followers, principal, carried_out))
                if route.then is None:
                    return _json(await carried_out())
                reached = await _act_and_wait(request, route.then, watch, principal, carried_out)
                return _json(reached.value, 202) if isinstance(reached, Accepted) else _json(reached)

        return act

    def answered(page: _Page, route: ControlRoute | None = None) -> _Page:
        return _answered(page, bound_host, route)

    routes = [Route(_path(route), answered(acting(route), route), methods=[route.method]) for route in ROUTES]
    pages = {"/v2/health/live": _live, "/openapi.json": _openapi, "/docs": _docs}
    routes += [Route(path, answered(page), methods=["GET"]) for path, page in pages.items()]
    unknown = functools.partial(_unknown, bound_host)
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    app.router.redirect_slashes = False
    return app


async def _live(_: Request) -> Response:
    return _json({"live": True})


async def _openapi(_: Request) -> Response:
    return _json(describe_routes(_TITLE, __version__, ROUTES))


async def _docs(_: Request) -> Response:
    return HTMLResponse(documentation_page(_TITLE, __version__, ROUTES))


def _path(route: ControlRoute) -> str:
    """The template as Starlette has it: a parameter `path` is the path of a file, with slashes."""
    return route.template.replace("{path}", "{path:path}")


def _answered(page: _Page, bound_host: str, route: ControlRoute | None = None) -> _Page:
    """`page` with the checks of headers in front, and refusals in words behind it."""

    async def answer(request: Request) -> Response:
        request.state.id = request_id(request.headers.get(REQUEST_ID_HEADER, ""))
        response = await attempt(request)
        response.headers[REQUEST_ID_HEADER] = request.state.id
        if route is not None and route.deprecated is not None:
            for name, value in route.deprecated.headers(request.path_params):
                response.headers[name.decode()] = value.decode()
        return response

    async def attempt(request: Request) -> Response:
        try:
            _check_host(request, bound_host)
            _check_version(request)
            return await page(request)
        except SalverError as error:
            return _refusal(error, route)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer, without details
            log_event("fault", level=logging.ERROR, error=error, request_id=request.state.id)
            return _refusal(SalverError("INTERNAL", "the request met a fault of this server"), route)

    return answer


async def _unknown(bound_host: str, request: Request, error: Exception) -> Response:
    """What no route takes, refused like all else."""
    code = "METHOD_NOT_ALLOWED" if getattr(error, "status_code", 404) == 405 else "NOT_FOUND"
    remedy = "predictions are on the data listener" if _PREDICTIONS.match(request.url.path) else "see /docs"
    what = SalverError(code, f"there is no {request.method[:20]} {request.url.path[:200]}", remedy)

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


def _check_version(request: Request) -> None:
    asked = request.headers.get(API_VERSION_HEADER.decode())
    if asked is not None:
        check_api_version(asked.encode("latin-1"))


async def _act_and_wait(
    request: Request,
    then: Callable[[Watch, Any], Awaitable[Any]],
    watch: Watch,
    principal: Principal,
    act: Callable[[], Awaitable[Any]],
) -> Any:
    """Begin in a thread, wait without one; QUEUE_FULL before anything is begun where too many wait."""
    with watch.place(principal):
        return await _unless_gone(request, then(watch, await act()))


async def _follow(
    request: Request, followers: Followers, principal: Principal, act: Callable[[], Awaitable[Followed[Any]]]
) -> Any:
    """Look in a thread, wait without one."""
    with followers.place(principal):
        return await _unless_gone(request, follow(followers, await act()))


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


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _refusal(error: SalverError, route: ControlRoute | None = None) -> Response:
    told = {"error": str(error), "code": error.code, "message": error.message, "remedy": error.remedy}
    if route is not None and route.refusal is not None:
        told = route.refusal(error)
    response = _json(told, error.http)
    response.headers["x-salver-error"] = error.code
    if error.retry_after_s is not None or error.code in _SOON:
        response.headers["retry-after"] = str(math.ceil(error.retry_after_s or 1.0))
    if error.code == "UNAUTHENTICATED":
        response.headers["www-authenticate"] = "Bearer"
    return response
