"""Two hundred versions on one server, with memory for a few of them."""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from salver.clock import SYSTEM_CLOCK
from salver.control.actions.deployments import DEPLOY
from salver.control.actions.registration import REGISTER
from salver.control.administration import LocalAdministration
from salver.control.registration import draft_version
from salver.registry.deploy_request import DeployRequest
from salver.security.access import local_principal
from salver.storage.blobs import BlobStore
from salver.storage.database import Database
from salver.storage.home import Home

COUNT = 200
BUDGET = 2 * 2**20


@pytest.fixture(scope="module")
def running(trees, models):
    """`m0` to `m199` multiply by 2, 3 and 4 in turn; all are lazy."""
    tree = trees()
    fill(tree.home, [models / f"times{factor}.onnx" for factor in (2, 3, 4)])
    tree.start(SALVER_SERVER_MEMORY_BYTES=str(BUDGET))
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert tree.left_behind() == []


def fill(path, files, count=COUNT) -> None:
    home = Home.open(path)
    database = Database.open(home.database_path)
    with home.lock("test"):
        admin = LocalAdministration(home, database, local_principal(), SYSTEM_CLOCK)
        admin.begin()
        drafts = [draft_version(BlobStore(home.blobs_path), "m", file) for file in files]
        for number in range(count):
            admin.do(REGISTER, msgspec.structs.replace(drafts[number % len(drafts)], model=f"m{number}"))
            admin.do(DEPLOY, DeployRequest(f"m{number}", settings={"load": "lazy"}))
    database.close()


def loaded(tree) -> dict[str, int]:
    return {row["endpoint"]: row["size_bytes"] for row in tree.salver("status")["endpoints"] if row["serving"]}


def counted(tree, name: str) -> float:
    text = tree.get("/metrics").body.decode()
    return sum(map(float, re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE)))


def test_all_are_ready_and_none_is_loaded(running) -> None:
    assert running.ready["failed"] == []
    assert running.get("/v2/health/ready").status == 200
    rows = running.salver("status")["endpoints"]
    assert (len(rows), {row["state"] for row in rows}) == (COUNT, {"cold"})
    assert running.get("/v2/models/m7/ready").status == 200
    assert running.get("/v2/models/m7").json["inputs"][0]["name"] == "x"
    assert "cold" in running.command("status").stdout.decode()


def test_each_answers_when_it_is_asked_within_the_memory_there_is(running) -> None:
    for number in range(COUNT):
        assert running.predict(f"m{number}", [1, 2]) == [number % 3 + 2, 2 * (number % 3 + 2)]
    sizes = loaded(running)
    assert 0 < sum(sizes.values()) <= BUDGET
    assert f"m{COUNT - 1}" in sizes
    assert counted(running, "salver_loads_total") == counted(running, "salver_cold_starts_total") == COUNT
    assert counted(running, "salver_unloads_total") == COUNT - len(sizes)
    assert counted(running, "salver_loaded_bytes") == sum(sizes.values())


def test_many_who_ask_a_cold_one_share_one_load_and_nobody_is_turned_away(running) -> None:
    cold = next(f"m{number}" for number in range(COUNT) if f"m{number}" not in loaded(running))
    before = counted(running, "salver_loads_total")
    answers: list[list[float]] = []
    callers = [threading.Thread(target=lambda: answers.append(running.predict(cold, [1, 2]))) for _ in range(16)]
    for each in callers:
        each.start()
    for each in callers:
        each.join(30)
    assert len(answers) == 16
    assert len({tuple(answer) for answer in answers}) == 1
    assert counted(running, "salver_loads_total") == before + 1


def test_one_that_cannot_be_loaded_says_so_and_the_others_answer(running, models) -> None:
    running.salver("register", "broken", models / "times2.onnx", "--version", "1.0.0")
    kept = (models / "times2.onnx").read_bytes()
    digest = hashlib.sha256(kept).hexdigest()
    (blob,) = (
        path for path in (running.home / "blobs").rglob("*") if path.is_file() and digest in "".join(path.parts[-2:])
    )
    blob.chmod(0o600)
    try:
        blob.write_bytes(b"\0" * len(kept))
        # Nobody has tried it, so nothing is known against it yet.
        assert running.salver("deploy", "broken", "--load", "lazy", "--optional", "--wait")["status"]["state"] == "cold"
        refused = running.infer("broken", [1, 2])
        assert (refused.status, refused.code) == (503, "NOT_READY")
        assert "CORRUPT_ARTIFACT" in refused.json["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert running.endpoint("broken")["code"] == "CORRUPT_ARTIFACT"
        assert running.get("/v2/health/ready").status == 200
    finally:
        blob.write_bytes(kept)
    running.until(lambda: running.infer("broken", [1, 2]).status == 200, "it is tried again")
    running.salver("undeploy", "broken")


def test_the_process_itself_keeps_to_the_memory_there_is(tree, tmp_path) -> None:
    """Its versions have 8 MiB each, and memory for two of them."""
    files = [tmp_path / f"heavy{number}.onnx" for number in range(8)]
    for number, file in enumerate(files):
        file.write_bytes(heavy(number))
    fill(tree.home, files, len(files))
    tree.start(SALVER_SERVER_MEMORY_BYTES=str(20 * 2**20))
    idle = own_bytes(tree.server_pid)
    grown = []
    for _ in range(2):
        for number in range(len(files)):
            assert tree.predict(f"m{number}", [1, 2]) == [number, 2 * number]
            grown.append(own_bytes(tree.server_pid) - idle)
    # What the first load takes for its library, and what is freed a moment later, has 12 MiB.
    assert max(grown[-8:]) < 32 * 2**20, grown
    assert tree.stop() == 0


def heavy(factor: int) -> bytes:
    """Gives so many times x, by way of two products with 4 MiB of weights each."""
    wide = np.eye(1024, dtype=np.float32)
    weights = [wide[:2], wide, wide, factor * wide[:, :2]]
    names = ["x", "a", "b", "c", "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[at], f"w{at}"], [names[at + 1]]) for at in range(4)],
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(each, f"w{at}") for at, each in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def own_bytes(pid: int) -> int:
    """Resident memory of a process that is of no file."""
    return int(re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1]) * 1024
