"""A client that puts odd texts into everything a route takes, by the table of routes, and looks at each answer."""

from __future__ import annotations

import contextlib
import functools
import http.client
import inspect
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
from tests.checks.odd_texts import LEAKS, ODD_TARGETS, ODD_TEXTS, SHARP_TEXTS, bodies
from tests.control.listening import Listening, listening

from salver.cli import main
from salver.control import administration, repository, routes, torchserve, uploads
from salver.control.actions import ACTIONS
from salver.control.routes import ROUTES

__all__ = ["ROUTE", "Attacker", "Attempt", "attacked", "attempts"]

ROUTE: Final = {f"{route.method} {route.template}": route for route in ROUTES}
_ACTION: Final = {f"{action.method} {action.template}": action for action in ACTIONS}
_PARAMETER: Final = re.compile(r"{(\w+)}")
_VALID: Final = {"model": "double", "version": "1.0.0", "sha256": "1" * 64, "path": "times2.onnx", "seq": "1"}
_ASKED: Final = re.compile(r"""(?:_whole|_flag)\(\s*call, "(\w+)"|query(?:\.get\(|\[)"(\w+)\"""")
_ASKED_BY_HAND: Final = sorted(
    {
        name
        for module in (administration, repository, routes, torchserve, uploads)
        for names in _ASKED.findall(inspect.getsource(module))
        for name in names
        if name
    }
)
"""What the routes that are no actions take from a query, as their source says."""
_PARTS: Final = {
    *("salver-home.json", "salver.db", "salver.db-wal", "salver.db-shm", "blobs", "tables.json", "lock", "scratch"),
    *("admin.token", "secrets", "audit", "trust", "usage", "jobs.db", "jobs.db-wal", "jobs.db-shm", "isolated.json"),
}
"""What may be in a home: see `salver.storage.home`."""
_HONEST: Final = ("UNSUPPORTED", "NOT_READY")
_HEADERS: Final = ("x-salver-why", "x-request-id", "x-salver-api-version", "accept", "content-type", "cookie")


class Attempt(NamedTuple):
    method: str
    target: str
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


def attempts(name: str) -> Iterator[Attempt]:
    """Everything that is tried on a route: odd texts in its path, its query, its body and its headers."""
    route, asked = ROUTE[name], _ACTION.get(name)
    texts = [quote(text, safe="") for text in ODD_TEXTS.values()]
    for parameter in _PARAMETER.findall(route.template):
        for segment in (*ODD_TARGETS, *texts):
            yield Attempt(route.method, _target(name, {parameter: segment}), _body(name))
    if asked is None or route.method in ("GET", "DELETE"):
        fields = [each.name for each in msgspec.structs.fields(asked.asked)] if asked else _ASKED_BY_HAND
        sharp = (quote(text, safe="") for text in SHARP_TEXTS.values())
        for field, text in itertools.product(fields, (*sharp, "%ff%00", "%ed%a0%80")):
            yield Attempt(route.method, f"{_target(name, {})}?{field}={text}", _body(name))
    if route.request is not None:
        for text in SHARP_TEXTS.values():
            for body in bodies(route.request, text):
                yield Attempt(route.method, _target(name, {}), body)
        lone = json.dumps(_body(name)).replace('"a"', '"\\ud800"').encode()
        yield Attempt(route.method, _target(name, {}), lone)
    if not _PARAMETER.search(route.template):  # headers are the same everywhere
        for header, text in itertools.product(_HEADERS, ODD_TARGETS):
            yield Attempt(route.method, _target(name, {}), _body(name), {header: text})


def _target(name: str, changed: dict[str, str]) -> str:
    """The path of a route; `changed` are segments as they travel."""
    # Nobody serves here, so what waits for a model to be served would wait in vain.
    valid = _VALID if ROUTE[name].then is None else _VALID | {"model": "nothing"}
    return _PARAMETER.sub(lambda found: changed.get(found[1], valid.get(found[1], "double")), ROUTE[name].template)


@functools.cache
def _body(name: str) -> Any:
    """A body that gets past the check of its structure."""
    route = ROUTE[name]
    if route.transfer is not None or route.method in ("GET", "HEAD", "DELETE"):
        return b"x" if route.method == "PUT" else None
    return (bodies(route.request, "a") or [{}])[0] if route.request is not None else None


class Attacker:
    """A client with an administrator's token."""

    def __init__(self, served: Listening, outside: Path) -> None:
        self._served, self._outside = served, outside
        self._token = served.token()
        place = urlsplit(served.url)
        self._connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
        self._connection._validate_path = lambda _: None  # also what no client sends
        self.statuses: dict[int, int] = {}

    def strangers(self) -> set[str]:
        """Files beside the home, and what is in it that no home has."""
        home = self._served.home.path
        inside = {path.name for path in home.iterdir()} - _PARTS
        return ({*map(str, self._outside.rglob("*"))} - {str(home), *map(str, home.rglob("*"))}) | inside

    def attack(self, attempt: Attempt) -> int:
        """Try it: never a fault, never a word about how it is inside."""
        method, target, body, headers = attempt
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        answer = self._answer(method, target, content, {"Authorization": f"Bearer {self._token}"} | headers)
        data = answer.read()
        said = f"{method} {target[:200]} {headers} {str(body)[:400]}: {answer.status} {data[:600]!r}"
        assert answer.status < 500 or answer.getheader("x-salver-error") in _HONEST, said
        told = data.decode() + str(answer.getheaders())
        assert not LEAKS.search(told), said
        assert str(self._outside) not in told, said
        if answer.status >= 400 and data:
            assert answer.getheader("content-type") == "application/json", said
            json.loads(data)
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        return answer.status

    def _answer(self, *request: Any) -> http.client.HTTPResponse:
        try:
            self._connection.request(*request)
            return self._connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):  # it was idle for too long
            self._connection.close()
            self._connection.request(*request)
            return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def attacked(outside: Path, model: Path) -> Iterator[Attacker]:
    """A listener whose home is the only thing in `outside`; the endpoint `double` is deployed in it."""
    place = outside / "home"
    assert main(["--home", str(place), "register", "double", str(model)]) == 0
    assert main(["--home", str(place), "deploy", "double"]) == 0
    with listening(place) as served:
        made = Attacker(served, outside)
        yield made
        assert made.strangers() == set()
        made.close()
