"""Everything that is tried on the routes of the control listener, on both databases: `make test-chaos`."""

from __future__ import annotations

import pytest
from tests.control.attacking import ROUTE, attacked, attempts

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_odd_name_in_any_text_of_any_route_does_anything(
    tmp_path, models, monkeypatch, request, capsys, database
) -> None:
    if database == "postgresql":
        monkeypatch.setenv("SALVER_STORAGE_DATABASE", request.getfixturevalue("postgres_url"))
    outside = tmp_path / "outside"
    outside.mkdir()
    with attacked(outside, models / "times2.onnx") as attacker:
        for name in ROUTE:
            for attempt in attempts(name):
                attacker.attack(attempt)
    with capsys.disabled():
        statuses = dict(sorted(attacker.statuses.items()))
        print(f"\nodd names on {database}: {sum(statuses.values())} requests, {len(ROUTE)} routes, answers {statuses}")
