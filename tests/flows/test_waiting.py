from __future__ import annotations

import pytest
from tests.flows.house import House


async def test_a_batch_is_held_until_the_clock_says_so_and_not_a_moment_longer(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "0.5", "--max-batch", "4")
    first, second = house.client(), house.client()
    first.infer("scale", [1, 2])
    await house.loop.turn(0.4)
    second.infer("scale", [3, 4])
    await house.loop.turn(0.09)
    assert first.replies + second.replies == []
    await house.loop.turn(0.01)
    # The one that came first decides; the other shares its batch.
    assert (first.reply.data, second.reply.data) == ([2, 4], [6, 8])
    assert house.counted("scale").batches == {2: 1}


async def test_a_full_batch_waits_for_no_clock(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "10", "--max-batch", "4")
    clients = [house.client() for _ in range(5)]
    for number, client in enumerate(clients):
        client.infer("scale", [number, 0])
    await house.loop.calm()
    assert [len(client.replies) for client in clients] == [1, 1, 1, 1, 0]
    assert house.counted("scale").batches == {4: 1}
    await house.loop.turn(10)
    assert clients[4].reply.data == [8, 0]


async def test_the_wait_for_more_ends_before_the_earliest_deadline_does(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "10")
    patient, hurried = house.client(), house.client()
    patient.infer("scale", [1, 2], timeout=2_500_000)
    hurried.infer("scale", [3, 4], timeout=500_000)
    await house.loop.turn(0.4)
    assert patient.replies + hurried.replies == []
    await house.loop.turn(0.1)
    assert (patient.reply.data, hurried.reply.data) == ([2, 4], [6, 8])
    assert house.counted("scale").batches == {2: 1}


async def test_a_deadline_that_passes_in_the_queue_is_told_and_nothing_runs_for_it(house: House, clock) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "10")
    patient, hurried = house.client(), house.client()
    patient.infer("scale", [1, 2], timeout=2_500_000)
    hurried.infer("scale", [3, 4], timeout=500_000)
    clock.advance(0.6)  # in which the loop did not turn
    await house.loop.calm()
    assert (hurried.reply.status, hurried.reply.code) == (504, "DEADLINE_EXCEEDED")
    assert patient.replies == []
    clock.advance(2)
    await house.loop.turn(0.1)
    assert patient.reply.code == "DEADLINE_EXCEEDED"
    await house.loop.turn(10)
    counted = house.counted("scale")
    assert (counted.batches, counted.failures) == ({}, {"DEADLINE_EXCEEDED": 2})


async def test_a_caller_that_departs_is_dropped_before_it_runs_and_the_others_are_not(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "1")
    clients = [house.client() for _ in range(3)]
    for number, client in enumerate(clients):
        client.infer("scale", [number, 0])
    await house.loop.turn(0.5)
    clients[1].leave()
    await house.loop.turn(0.5)
    assert [clients[0].reply.data, clients[2].reply.data] == [[0, 0], [4, 0]]
    assert clients[1].replies == []
    counted = house.counted("scale")
    assert (counted.rows, counted.successes, counted.batches) == (2, 2, {2: 1})
    assert house.status("scale").waiting == 0


async def test_a_queue_of_departed_callers_makes_room_for_those_who_stay(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--policy", "timeout", "--max-wait", "10", "--max-queue", "2")
    departed = [house.client() for _ in range(2)]
    for client in departed:
        client.infer("scale", [0, 0])
    assert (await house.ask("scale", [0, 0])).code == "QUEUE_FULL"
    for client in departed:
        client.leave()
    await house.loop.turn(0.2)
    stays = house.client()
    stays.infer("scale", [1, 2])
    await house.loop.turn(10)
    assert stays.reply.data == [2, 4]


async def test_headers_that_do_not_end_are_refused_at_their_limit(house: House) -> None:
    await house.open()
    client = house.client()
    for turn in range(9):
        client.send(b"GET / HTTP/1.1\r\n" if turn == 0 else b"X-Slow: yes\r\n")
        await house.loop.turn(1)
    assert client.replies == []
    await house.loop.turn(2)
    assert (client.reply.status, client.reply.code) == (408, "REQUEST_TIMEOUT")
    await house.loop.turn(2)
    assert client.gone


async def test_a_body_that_trickles_is_refused_and_one_at_a_fair_pace_is_not(house: House) -> None:
    await house.open()
    await house.deploy("scale@1.0.0")
    slow, fair = house.client(), house.client()
    for client in (slow, fair):
        client.send(b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n")
    for _ in range(12):
        slow.send(b" " * 100)
        fair.send(b" " * 2500)
        await house.loop.turn(1)
    assert (slow.reply.status, slow.reply.code) == (408, "REQUEST_TIMEOUT")
    # It came whole, and is no request that could be understood.
    assert fair.reply.status == 400


async def test_a_client_that_never_reads_is_cut_off_at_its_limit_and_one_that_reads_slowly_is_served(house) -> None:
    await house.open()
    await house.deploy("scale@1.0.0", "--max-batch", "64")
    stuck, slow = house.client(), house.client()
    for client in (stuck, slow):
        client.stop_reading()
        for _ in range(150):
            client.infer("scale", [[0.1, 0.7]] * 64)
            await house.loop.calm()
        assert client.get_write_buffer_size() > 64 * 2**10
    for _ in range(35):
        slow.read(2000)
        await house.loop.turn(1)
    assert (stuck.gone, slow.gone) == (True, False)
    assert (await house.ask("scale", [1, 2])).data == [2, 4]


@pytest.mark.parametrize(("wait_s", "gone"), [(74, False), (76.5, True)])
async def test_a_connection_without_requests_is_closed_when_it_was_idle_for_its_limit(house, wait_s, gone) -> None:
    await house.open()
    client = house.client()
    client.get("/v2/health/live")
    await house.loop.calm()
    assert client.reply.status == 200
    await house.loop.turn(wait_s)
    assert client.gone is gone
