"""What the parts are wired to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tests.flows.house import House

from salver.telemetry.counts import Picture, take_over_counts
from salver.testing import eventually


async def test_every_route_of_the_data_listener_stands_there_once(house: House) -> None:
    await house.open()
    routes = Counter((route.method, route.template) for route in house.plane.gateway.routes.routes)
    assert [route for route, number in routes.items() if number > 1] == []
    assert len(routes) > 50


async def test_what_was_shown_of_several_processes_is_on_disk_before(house: House, tmp_path: Path) -> None:
    async def none_else() -> list[Picture]:
        return []

    path = tmp_path / "counts"
    await house.open(siblings=none_else, counts_path=path)
    await house.loop.turn(0.25)
    for _ in range(3):
        await house.ask("nobody", [[1, 2]])
    client = house.client()
    client.get("/metrics")
    await house.loop.calm()
    (line,) = [line for line in client.reply.body.splitlines() if line.startswith(b"salver_refusals_total{")]
    assert line.endswith(b" 3.0")
    assert list(take_over_counts(path).metrics.refusals.values()) == [3]


async def test_a_change_of_one_endpoint_leaves_the_targets_of_all_others_as_they_are(house: House) -> None:
    await house.open()
    await house.deploy("scale")
    await house.deploy("scale", "--endpoint", "lazy", "--load", "lazy")
    await house.deploy("scale", "--endpoint", "cached", "--cache-bytes", "65536")
    before = dict(house.plane.router.targets())
    await house.deploy("loop")
    after = dict(house.plane.router.targets())
    assert after.keys() - before.keys() == {"loop"}
    assert [name for name in before if after[name] is not before[name]] == []


async def test_each_of_several_processes_keeps_to_its_share_of_the_memory(
    house: House, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.runtime.host.private_bytes", lambda *_: 0)  # what artifacts have decides
    share = 2 * (models / "times2.onnx").stat().st_size
    await house.open({"SALVER_SERVER_MEMORY_BYTES": str(4 * share), "SALVER_SERVER_PROCESSES": "4"})
    names = [f"lazy{number}" for number in range(8)]
    for name in names:
        house.salver("deploy", "scale", "--endpoint", name, "--load", "lazy")
    await house.notice()
    most = 0
    for name in names:
        client = house.client()
        client.infer(name, [[1.0, 2.0]])
        await eventually(lambda client=client: bool(client.replies))
        assert client.reply.status == 200
        await house.notice()
        most = max(most, sum(house.status(name).size_bytes for name in names))
    assert 0 < most <= share


async def test_what_clients_asked_is_in_the_compatibility_matrix(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await house.open()
    await house.deploy("scale")
    for _ in range(3):
        await house.ask("scale", [[1, 2]])
    await house.loop.turn(10.0)
    await eventually(lambda: any(house.home.usage_path.glob("*.json")))
    capsys.readouterr()
    house.salver("registry", "compat", "scale")
    told = msgspec.json.decode(capsys.readouterr().out)
    assert [(row["client"], row["endpoint"], row["version"], row["requests"]) for row in told["clients"]] == [
        ("anonymous", "scale", "3.0.0", 3)
    ]
    assert {cell["level"] for cell in told["cells"]} == {"patch"}
