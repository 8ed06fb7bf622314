"""Every command that changes a home, killed at every single step: `make test-chaos`."""

from __future__ import annotations

import itertools

import pytest
from tests.chaos.steps import COMMANDS, attempts, prepared

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def house(tmp_path_factory, models):
    place = tmp_path_factory.mktemp("prepared") / "home"
    prepared(place, [models / "times2.onnx", models / "times3.onnx"], b"nobody's")
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_step_has_happened_or_has_not(house, tmp_path, models, capsys, name) -> None:
    words = [word.format(new=models / "times4.onnx") for word in COMMANDS[name]]
    died = attempts(house, words, tmp_path, itertools.count(1))
    with capsys.disabled():
        print(f"\n{name}: killed at each of {died} steps, always the old state or the new")
    assert died > 10
