from __future__ import annotations

import json
import threading
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from tests.flows.house import House

from salver.testing import eventually


async def test_what_is_deployed_answers_within_a_quarter_second_of_the_clock(house: House) -> None:
    await house.open()
    house.salver("deploy", "scale@1.0.0")
    await house.loop.turn(0.2)
    assert (await house.ask("scale", [1, 2])).code == "NOT_FOUND"
    await house.loop.turn(0.05)
    await house.plane.host.settled()
    reply = await house.ask("scale", [1, 2])
    assert (reply.data, reply.version) == ([2, 4], "1.0.0")


async def test_requests_that_wait_are_answered_by_the_version_they_came_to_and_later_ones_by_the_next(house) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "5", "--max-batch", "8")
    old = [house.client() for _ in range(3)]
    for number, client in enumerate(old):
        client.infer("scale", [number, 1])
    await house.deploy("scale@2.0.0", "--policy", "eager", "--max-wait", "0")
    assert [client.replies for client in old] == [[], [], []]
    assert (await house.ask("scale", [1, 2])).data == [3, 6]
    await house.loop.turn(5)
    assert [client.reply.data for client in old] == [[0, 2], [2, 2], [4, 2]]
    assert {client.reply.version for client in old} == {"1.0.0"}
    assert house.counted("scale", "1.0.0").batches == {3: 1}


async def test_a_connection_goes_on_across_versions_and_rollbacks(house: House) -> None:
    await house.open()
    client = house.client()
    for version, factor in (("1.0.0", 2), ("2.0.0", 3), ("3.0.0", 4), ("1.0.0", 2)):
        await house.deploy(f"scale@{version}")
        client.infer("scale", [1, 10])
        await house.loop.calm()
        assert (client.replies[-1].data, client.replies[-1].version) == ([factor, 10 * factor], version)
    assert len(client.replies) == 4


async def test_an_endpoint_that_is_undeployed_answers_what_it_has_and_is_unknown_then(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "5")
    waiting = house.client()
    waiting.infer("scale", [1, 2])
    house.salver("undeploy", "scale")
    await house.notice()
    assert (await house.ask("scale", [1, 2])).code == "NOT_FOUND"
    await house.loop.turn(5)
    assert waiting.reply.data == [2, 4]


async def test_a_damaged_or_missing_snapshot_changes_nothing_and_the_next_whole_one_counts(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0")
    whole = house.home.tables_path.read_bytes()
    house.home.tables_path.write_bytes(whole[:-10])
    await house.notice()
    assert (await house.ask("scale", [1, 2])).data == [2, 4]
    house.home.tables_path.unlink()
    await house.notice()
    assert (await house.ask("scale", [1, 2])).data == [2, 4]
    await house.deploy("scale@2.0.0")
    assert (await house.ask("scale", [1, 2])).data == [3, 6]


async def test_a_token_counts_once_it_is_published_and_no_longer_than_that(house: House, capsys) -> None:
    await house.open()
    await house.deploy("scale@1.0.0")
    capsys.readouterr()
    house.salver("token", "create", "caller", "--role", "predictor")
    made = json.loads(capsys.readouterr().out)

    async def ask() -> int:
        client = house.client()
        client.get("/v2/models/scale", authorization=f"Bearer {made['token']}")
        await house.loop.calm()
        return client.reply.status

    assert await ask() == 401
    await house.notice()
    assert await ask() == 200
    house.salver("token", "revoke", made["record"]["id"])
    await house.notice()
    assert await ask() == 401


async def test_a_drain_lets_what_waits_finish_and_closes_the_quiet_connections(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "2")
    gateway = house.plane.gateway
    idle, waiting = house.client(), house.client()
    waiting.infer("scale", [1, 2])
    gateway.drain()
    gateway.close_idle()
    await house.loop.turn(0.3)
    gateway.close_idle()
    await house.loop.calm()
    assert (idle.gone, waiting.gone, gateway.owes) == (True, False, 1)
    await house.loop.turn(2)
    assert waiting.reply.data == [2, 4]
    assert waiting.reply.headers["connection"] == "close"
    await house.loop.turn(1.5)
    assert (waiting.gone, gateway.owes) == (True, 0)


async def test_a_batch_that_hangs_is_given_up_and_its_version_moves_to_a_worker_for_good(house, clock) -> None:
    clock.busy_s = 0.01  # computing takes long, so the version leaves the event loop
    await house.open()
    await house.deploy("loop", "--hang", "0.5", "--deadline", "60")
    for _ in range(200):
        if house.status("loop").placement == "thread":
            break
        client = house.client()
        client.infer("loop", [0, 0])
        await eventually(lambda client=client: client.replies)
    assert house.status("loop").placement == "thread"
    stuck = house.client()
    stuck.infer("loop", [1, 3e6])  # a second or two, during which the clock turns further than that
    await house.loop.turn(0.4)
    assert stuck.replies == []
    await house.loop.turn(0.2)
    assert (stuck.reply.status, stuck.reply.code) == (504, "MODEL_HUNG")
    await house.plane.host.settled()
    assert house.status("loop").placement == "process"
    client = house.client()
    client.infer("loop", [3, 4])
    await eventually(lambda: client.replies)
    assert client.reply.data == [3, 4]
    await eventually(house.home.isolated_path.exists)
    assert len(house.home.isolated_path.read_bytes()) > 64
    # What was given up cannot be stopped, only waited for.
    await eventually(lambda: not [t for t in threading.enumerate() if t.name == "salver loop@1.0.0"])


async def test_whoever_asks_a_version_that_is_to_be_retired_is_told_when(house: House, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[retirement]]\nname = "old"\nolder_than_days = 0\nnotice_days = 30\n')
    await house.open()
    await house.deploy("scale")
    assert "sunset" not in (await house.ask("scale", [[1, 2]])).headers
    house.salver("policy", "set", policy)
    house.salver("retire", "propose")
    await house.notice()
    told = (await house.ask("scale", [[1, 2]])).headers
    sunset_s = parsedate_to_datetime(told["sunset"]).timestamp()
    assert sunset_s - int(told["deprecation"].removeprefix("@")) == pytest.approx(30 * 86_400, abs=1)
    house.salver("retire", "cancel", "scale@3.0.0")
    await house.notice()
    assert "sunset" not in (await house.ask("scale", [[1, 2]])).headers
