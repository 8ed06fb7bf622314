"""All odd texts in all routes of the control listener, on both databases, and in all commands: `make test-chaos`."""

from __future__ import annotations

import collections
import contextlib
import io
import os

import pytest
from tests.checks.home_checks import run, sound
from tests.cli.odd_arguments import COMMANDS
from tests.cli.odd_arguments import attempts as argument_lists
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


EACH = int(os.environ.get("CHAOS_EACH", "3"))
"""Of the argument lists of commands one in so many is tried; 1 for all of them, which takes three times as long."""


def test_no_odd_text_in_any_argument_of_any_command_is_a_fault(tmp_path, models, monkeypatch, capsys) -> None:
    from salver.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setenv("SALVER_HOME", str(tmp_path / "home"))
    run(tmp_path / "home", "register", "double", models / "times2.onnx")
    run(tmp_path / "home", "deploy", "double")
    codes: collections.Counter[int] = collections.Counter()
    for place, words in enumerate(COMMANDS):
        for given in list(argument_lists(words))[place % EACH :: EACH]:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as complaint:
                codes[main(["--json", *given])] += 1
            assert "INTERNAL" not in complaint.getvalue(), (given, complaint.getvalue())
            assert "Traceback" not in complaint.getvalue(), (given, complaint.getvalue())
    assert set(codes) <= {0, 1, 2, 3}
    sound(tmp_path / "home")
    with capsys.disabled():
        told = dict(sorted(codes.items()))
        print(f"\nodd arguments: {codes.total()} commands of {len(COMMANDS)} kinds, exit codes {told}")
