from __future__ import annotations

from typing import Any

import msgspec
import pytest

from salver.control.action import Action
from salver.control.actions import ACTIONS
from salver.control.route import Call
from salver.protocol.errors import SalverError
from salver.security.access import Operation


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: str
    limit: int = 10
    deep: bool = False
    after: str | None = None


def action(method: str) -> Action[Asked, str]:
    return Action(method, "/v1/a/{name}/{version}", Operation.READ, "A", Asked, str, lambda _, asked: asked.name)


class Doing:
    """An administration that shows what it is asked."""

    def do(self, _: Any, asked: Any) -> Any:
        return asked


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_what_is_written_is_read_again(method: str) -> None:
    asked, row = Asked("a/b", "1.0.0+ä&b", limit=3, deep=True, after="x=y"), action(method)
    path, body = row.write(asked)
    assert path.startswith("/v1/a/a%2Fb/1.0.0%2B")
    query = dict(part.split("=", 1) for part in path.partition("?")[2].split("&") if part)
    typed = msgspec.convert(body, row.route.request) if body is not None else None
    decoded = {"limit": "3", "deep": "true", "after": "x=y"} if query else {}
    assert query.keys() == decoded.keys()
    call = Call({"name": "a/b", "version": "1.0.0+ä&b"}, decoded, typed)
    assert row.route.act(Doing(), call) == asked


def test_a_body_holds_no_field_of_the_path_and_none_that_is_unknown() -> None:
    kind = action("POST").route.request
    assert [field.name for field in msgspec.structs.fields(kind)] == ["limit", "deep", "after"]
    with pytest.raises(msgspec.ValidationError, match="unknown"):
        msgspec.json.decode(b'{"name": "other"}', type=kind)


@pytest.mark.parametrize("query", [{"limit": "many"}, {"unknown": "1"}, {"deep": "perhaps"}])
def test_a_wrong_query_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(SalverError) as refused:
        action("GET").route.act(Doing(), Call({"name": "a", "version": "b"}, query, None))
    assert refused.value.code == "INVALID_PARAMETER"


def test_every_action_has_its_own_path_and_says_what_it_does() -> None:
    assert len({(row.method, row.template) for row in ACTIONS}) == len(ACTIONS)
    for row in ACTIONS:
        fields = {field.name for field in msgspec.structs.fields(row.asked)}
        assert set(row._in_path) <= fields, row.template
        assert row.asked.__struct_config__.forbid_unknown_fields, row.template
        assert row.asked.__struct_config__.frozen, row.template
        assert row.summary
