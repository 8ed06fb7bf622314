"""Commands killed at some of their steps; tests/chaos/test_steps.py kills them at all."""

from __future__ import annotations

import pytest
from tests.chaos.steps import COMMANDS, attempts, prepared


@pytest.fixture(scope="module")
def house(tmp_path_factory, models):
    place = tmp_path_factory.mktemp("prepared") / "home"
    prepared(place, [models / "times2.onnx", models / "times3.onnx"], b"nobody's")
    return place


@pytest.mark.parametrize(
    ("name", "steps"), [("register", (20, 45, 60, 75, 90)), ("deploy", (50, 70, 90)), ("collect", (40, 60))]
)
def test_a_command_that_is_killed_has_happened_or_has_not(house, tmp_path, models, name, steps) -> None:
    words = [word.format(new=models / "times4.onnx") for word in COMMANDS[name]]
    assert attempts(house, words, tmp_path, steps) > 0
