"""Odd names in every text of every route, taken from the table of routes: refused in words, and nothing happens.

A part of all that is tried; tests/chaos/test_odd_names.py tries the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec
import pytest
from tests.checks.odd_texts import LEAKS, bodies, strings_in
from tests.control.attacking import ROUTE, Attacker, attacked, attempts

from salver.registry.draft import VersionDraft

EACH = 48
"""One in so many is tried, others for each route."""


@pytest.fixture(scope="module")
def attacker(tmp_path_factory, models) -> Iterator[Attacker]:
    with attacked(tmp_path_factory.mktemp("outside"), models / "times2.onnx") as made:
        yield made


def test_every_route_refuses_odd_names_in_words_and_does_nothing(attacker: Attacker) -> None:
    for place, name in enumerate(ROUTE):
        for attempt in islice(attempts(name), place % EACH, None, EACH):
            attacker.attack(attempt)
    assert set(attacker.statuses) <= {200, 201, 202, 400, 403, 404, 405, 409, 413, 415, 421, 422, 429, 501, 503}
    assert sum(attacker.statuses.values()) > 150
    assert attacker.strangers() == set()


class TokenRequest(msgspec.Struct):
    name: str
    role: str
    tenant: str = "default"
    expires_in_s: float | None = None


def test_each_text_of_a_structure_is_reached() -> None:
    assert bodies(TokenRequest, "odd") == [
        {"name": "odd", "role": "predictor", "tenant": "a", "expires_in_s": 1.0},
        {"name": "double", "role": "odd", "tenant": "a", "expires_in_s": 1.0},
        {"name": "double", "role": "predictor", "tenant": "odd", "expires_in_s": 1.0},
    ]
    assert strings_in(VersionDraft) > 10


@pytest.mark.parametrize(
    "told", ['File "/x.py", line 1', "sqlite3.OperationalError: near", "<object at 0x7f1b8c0580d0>"]
)
def test_what_tells_how_it_is_inside_would_be_seen(told: str) -> None:
    assert LEAKS.search(told)
