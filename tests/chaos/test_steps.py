"""Every command that changes a home, killed at every single step: `make test-chaos`."""

from __future__ import annotations

import itertools
import shutil

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


def test_several_files_of_an_encrypted_home_are_registered_whole_or_not_at_all(
    tmp_path, models, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("SALVER_TEST_KEY", "5a" * 32)
    monkeypatch.setenv("SALVER_STORAGE_ENCRYPTION_KEY", "env:SALVER_TEST_KEY")
    (tmp_path / "prepared").mkdir()
    house, artifact = tmp_path / "prepared" / "home", tmp_path / "double"
    prepared(house, [models / "times2.onnx", models / "times3.onnx"], b"nobody's")
    artifact.mkdir()
    shutil.copy(models / "times4.onnx", artifact / "model.onnx")
    (artifact / "vocabulary.txt").write_text("two\nfour\n")
    (artifact / "salver-model.toml").write_text('[metadata]\nauthor = "Ann"\n')
    died = attempts(house, ["register", "double", str(artifact)], tmp_path, itertools.count(1))
    with capsys.disabled():
        print(f"\nregister of three files, encrypted: killed at each of {died} steps, always the old state or the new")
    assert died > 10
