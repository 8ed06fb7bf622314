"""Servers whose database is PostgreSQL: two on one, and one that loses it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from tests.postgres import PostgresServer


@pytest.fixture
def server():
    with tempfile.TemporaryDirectory(prefix="salver-pg-", ignore_cleanup_errors=True) as directory:
        made = PostgresServer(Path(directory))
        try:
            made.set_up()
            yield made
        finally:
            made.stop()


def test_a_change_in_one_home_reaches_the_other_and_serving_outlives_the_database(trees, models, server) -> None:
    first, second = trees(), trees()
    first.home.mkdir(mode=0o700)
    (first.home / "storage.toml").write_text(f'database = "{server.url("ready")}"')
    first.salver("register", "double", models / "times2.onnx")
    shutil.copytree(first.home, second.home)
    first.start()
    second.start()
    first.deploy("double")
    first.until(lambda: first.infer("double", [1, 2]).status == 200, "this home serves it")
    second.until(lambda: second.infer("double", [1, 2]).status == 200, "the other home serves it")
    assert second.predict("double", [1, 2]) == [2, 4]
    server.stop()
    assert first.predict("double", [3, 4]) == [6, 8]
    answer = first.administer("POST", "/v1/deployments", {"model": "double", "settings": {"max_batch": 7}})
    assert (answer.status, answer.code) == (503, "CONTROL_UNAVAILABLE")
    assert b"hidden-word" not in answer.body
    assert second.predict("double", [3, 4]) == [6, 8]
    second.until(lambda: second.events("database_away"), "the other has noticed")
    server.start()
    second.until(
        lambda: second.administer("DELETE", "/v1/deployments/double").status == 200, "the database is back for changes"
    )
    first.until(lambda: first.infer("double", [1, 2]).status == 404, "the first home has heard of it")
    for tree in (first, second):
        assert tree.stop() == 0
        tree.until(tree.is_gone, "nothing is left", 5)
        assert "hidden-word" not in tree.log_path.read_text()
        assert not tree.events("fault")
