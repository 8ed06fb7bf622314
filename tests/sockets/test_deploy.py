from __future__ import annotations

import json

import pytest

from salver import app


@pytest.fixture(scope="module")
def running(trees, models):
    """A server whose endpoint `n` has versions that multiply by 2, 3 and 4."""
    tree = trees()
    for factor in (2, 3, 4):
        tree.salver("register", "n", models / f"times{factor}.onnx", "--version", f"{factor}.0.0")
    tree.salver("deploy", "n@2.0.0")
    tree.start()
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)


def test_a_deployment_reaches_a_running_server_which_looks_several_times_a_second(running) -> None:
    running.salver("deploy", "n@3.0.0", "--endpoint", "new")
    running.until(lambda: running.infer("new", [1, 1]).status == 200, "the endpoint answers")
    assert running.predict("new", [1, 2]) == [3, 6]
    running.salver("undeploy", "new")
    running.until(lambda: running.infer("new", [1, 1]).status == 404, "the endpoint is gone")
    assert app._POLL_S <= 0.25  # far below the 2 s in which a deployment begins to load


def test_wait_tells_when_it_serves_and_when_it_has_failed_while_the_old_version_serves_on(running, models) -> None:
    done = running.salver("deploy", "n@3.0.0", "--wait")
    assert done["status"]["state"] == "ready"
    assert done["status"]["serving"] == "n@3.0.0"
    assert running.predict("n", [1, 2]) == [3, 6]
    running.salver("register", "n", models / "loop.onnx", "--version", "9.0.0")
    blob = _blob(running, (models / "loop.onnx").read_bytes())
    blob.chmod(0o600)
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + b"#")
    code, output, _ = running.attempt("deploy", "n@9.0.0", "--wait")
    assert code == 1
    document = json.loads(output)
    assert document["status"]["code"] == "CORRUPT_ARTIFACT"
    assert document["status"]["serving"] == "n@3.0.0"
    assert running.predict("n", [1, 2]) == [3, 6]
    assert running.get("/v2/health/ready").status == 200
    code, output, _ = running.attempt("doctor")
    assert code == 1
    assert any(row["check"] == "stored bytes" and row["state"] == "error" for row in json.loads(output))
    blob.write_bytes(good)
    running.salver("deploy", "n@9.0.0", "--wait")
    assert running.predict("n", [1, 2]) == [1, 2]
    assert running.get("/v2/models/n").json["versions"] == ["9.0.0"]


def test_versions_replaced_under_load_give_no_error_and_no_answer_of_another_version(running, load) -> None:
    row = running.salver("deploy", "n@2.0.0", "--wait")
    clients = load(running, "n")
    for turn in range(8):
        version = f"{2 + turn % 3}.0.0"
        spec = running.deploy(f"n@{version}")
        running.wait_serving("n", f"n@{version}", spec["generation"])
        seen = len(clients.ledger)
        running.until(lambda seen=seen: len(clients.ledger) > seen + 10, "answers between two deployments")
    ledger = clients.end()
    assert [outcome for outcome in ledger if outcome.problem] == []
    wrong = [outcome for outcome in ledger if outcome.answer != outcome.value * int(outcome.version[0])]
    assert wrong == []
    assert {outcome.version for outcome in ledger} == {"2.0.0", "3.0.0", "4.0.0"}
    assert row["deployment"]["generation"] < spec["generation"]


def test_deploying_again_keeps_settings_that_are_not_named(running) -> None:
    running.salver("deploy", "n@2.0.0", "--endpoint", "kept", "--max-batch", "7", "--optional")
    again = running.salver("deploy", "n@3.0.0", "--endpoint", "kept", "--policy", "timeout", "--max-wait", "0.001")
    assert (again["max_batch"], again["required"], again["max_wait_s"]) == (7, False, 0.001)
    running.salver("undeploy", "kept")


def _blob(tree, content: bytes):
    found = [path for path in (tree.home / "blobs").rglob("*") if path.is_file() and path.read_bytes() == content]
    assert len(found) == 1
    return found[0]
