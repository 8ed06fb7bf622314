"""A server loads what is published only as it was signed; what serves goes on."""

from __future__ import annotations

import json
from pathlib import Path


def _edit(tree, change) -> None:
    """Change the published snapshot behind the controller's back, as a newer one."""
    path = tree.home / "tables.json"
    tables = json.loads(path.read_text())
    change(tables)
    tables["revision"] += 1
    (path.parent / "edited").write_text(json.dumps(tables))
    (path.parent / "edited").replace(path)


def test_an_edited_snapshot_does_not_load_and_the_version_before_answers_on(tree, models: Path) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start()
    assert tree.predict("double", [[1, 2]]) == [2, 4]

    def vouch(tables) -> None:
        tables["versions"][0]["trusts_code"] = True
        tables["deployments"][0]["generation"] += 1

    _edit(tree, vouch)
    tree.until(lambda: tree.endpoint("double").get("code") == "REFUSED_BY_POLICY", "the edit was refused")
    assert "signed with another trusts_code" in tree.endpoint("double")["problem"]
    assert tree.predict("double", [[1, 2]]) == [2, 4]


def test_a_revoked_version_answers_until_the_next_start_and_not_after(tree, models: Path) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start()
    assert tree.salver("revoke", "double@1.0.0", "--why", "wrong labels")["endpoints"] == ["double"]
    assert tree.predict("double", [[1, 2]]) == [2, 4]
    assert tree.stop() == 0
    (failed,) = tree.start()["failed"]
    assert "was revoked: wrong labels" in failed["error"]
    assert tree.endpoint("double")["code"] == "REFUSED_BY_POLICY"
    assert tree.infer("double", [[1, 2]]).status == 503
