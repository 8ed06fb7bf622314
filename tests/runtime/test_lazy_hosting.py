"""Versions that are loaded when they are asked, on a host whose versions come from a shelf."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.runtime.hosting import V1, V2, Hosting, Shelf, hosting

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.protocol.tables import FileEntry, Load, Placement, VersionManifest
from salver.runtime.lazy import LazyVersion
from salver.runtime.memory import MemoryBudget
from salver.runtime.status import LoadState
from salver.telemetry.metrics import VersionMetrics
from salver.testing import RAISES, eventually, make_request, make_spec

LAZY = make_spec(load=Load.LAZY)


class Lazily(Hosting):
    """A host whose lazy versions are served as the data plane serves them."""

    def _changed(self) -> None:
        super()._changed()
        pools = self.host.pools()
        for name, lazy in self.host.lazy_versions().items():
            if name in pools:
                lazy.serve(pools[name])

    def ask(self, value: float, endpoint: str = "arithmetic", **changes: Any) -> asyncio.Future[Any]:
        changes = {"received_s": SYSTEM_CLOCK.monotonic_s()} | changes
        return self.host.lazy_versions()[endpoint](make_request([[value, value]], **changes))

    def states(self) -> list[str]:
        return sorted(row.state for row in self.host.status())


@pytest.fixture
def shelf(monkeypatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr("salver.runtime.host.load_version", shelf.load)
    return shelf


@contextlib.asynccontextmanager
async def lazily(store: Any, shelf: Shelf, budget: int = 0) -> AsyncIterator[Any]:
    async with hosting(store, shelf, Lazily) as one:
        one.host._memory = MemoryBudget(budget, SYSTEM_CLOCK, one.host._occupants, one.host._put_to_rest)
        yield one


def loaded(shelf: Shelf) -> int:
    return sum(len(models) for models in shelf.models.values())


def value(response: Any) -> float:
    return float(response.array("y")[0, 0])


async def test_nothing_is_loaded_before_it_is_asked_and_then_once_for_all_who_ask(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        await one.settle((V1, LAZY))
        assert (one.status.state, one.status.available, one.status.serving, loaded(shelf)) == (
            LoadState.COLD,
            True,
            None,
            0,
        )
        assert one.host.is_ready()
        answers = [one.ask(number) for number in range(20)]
        assert [value(answer) for answer in await asyncio.gather(*answers)] == [2 * n + 1 for n in range(20)]
        assert (one.status.state, loaded(shelf)) == (LoadState.READY, 1)
        counted = one.metrics.version("arithmetic", "1.0.0")
        assert (counted.loading.loads, counted.loading.cold_starts, counted.successes) == (1, 1, 20)
        assert counted.loading.seconds > 0


async def test_an_answer_says_how_long_it_waited_for_the_load(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        gate = threading.Event()
        shelf.preparations["1.0.0"] = gate.wait
        await one.settle((V1, LAZY))
        began_s = SYSTEM_CLOCK.monotonic_s()
        answer = one.ask(1)
        await eventually(lambda: one.status.state is LoadState.LOADING)
        gate.set()
        ((cause, seconds),) = (await answer).waits
        assert cause == "load"
        assert 0 < seconds <= SYSTEM_CLOCK.monotonic_s() - began_s
        assert (await one.ask(2)).waits == ()


async def test_those_who_wait_expire_and_leave_and_do_not_run(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        gate = threading.Event()
        shelf.preparations["1.0.0"] = gate.wait
        await one.settle((V1, LAZY))
        expires = one.ask(1, deadline_s=SYSTEM_CLOCK.monotonic_s() + 0.05)
        leaves, stays = one.ask(2), one.ask(3)
        assert one.status.waiting == 3
        leaves.cancel()
        with pytest.raises(SalverError, match="not loaded after") as expired:
            await expires
        assert expired.value.code == "DEADLINE_EXCEEDED"
        assert one.status.state is LoadState.LOADING
        gate.set()
        assert value(await stays) == 7
        assert [batch.tolist() for batch in shelf.model("1.0.0").batches if batch.any()] == [[[3, 3]]]
        assert one.metrics.version("arithmetic", "1.0.0").failures == {"DEADLINE_EXCEEDED": 1}


async def test_no_more_wait_than_the_queue_would_hold(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        await one.settle((V1, msgspec.structs.replace(LAZY, max_queue=2)))
        first, second = one.ask(1), one.ask(2)
        with pytest.raises(SalverError) as refused:
            one.ask(3)
        assert refused.value.code == "QUEUE_FULL"
        first.cancel()
        third = one.ask(3)
        assert [value(answer) for answer in await asyncio.gather(second, third)] == [5, 7]


async def test_a_load_that_fails_is_told_and_tried_again_after_a_pause(store, shelf, monkeypatch) -> None:
    monkeypatch.setattr("salver.runtime.lazy._FIRST_PAUSE_S", 0.1)
    async with lazily(store, shelf) as one:
        shelf.failures["1.0.0"] = ValueError("broken")
        await one.settle((V1, LAZY))
        asked = [one.ask(1), one.ask(2)]
        for answer in asked:
            with pytest.raises(SalverError, match="could not be loaded: LOAD_FAILED") as failed:
                await answer
            assert (failed.value.code, failed.value.retry_after_s) == ("NOT_READY", 0.1)
        await one.host.settled()
        assert (one.status.state, one.status.code, one.host.is_ready()) == (LoadState.FAILED, "LOAD_FAILED", False)
        with pytest.raises(SalverError, match="could not be loaded") as refused:
            one.ask(3)
        assert 0 < refused.value.retry_after_s < 0.1
        # Who looks for a ready server must be able to come back to this one.
        await eventually(one.host.is_ready)
        del shelf.failures["1.0.0"]
        assert value(await one.ask(4)) == 9
        assert (one.status.state, one.status.code) == (LoadState.READY, None)


async def test_a_cold_version_is_replaced_without_loading_and_those_who_wait_get_the_new_one(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        await one.settle((V1, LAZY))
        await one.settle((V2, msgspec.structs.replace(LAZY, generation=2)))
        assert (loaded(shelf), one.status.wanted, one.status.generation) == (0, "arithmetic@2.0.0", 2)
        gate = threading.Event()
        shelf.preparations["2.0.0"] = gate.wait
        waiting = one.ask(1)
        await eventually(lambda: one.status.state is LoadState.LOADING)
        one.apply((V1, msgspec.structs.replace(LAZY, generation=3)))
        response = await waiting
        assert (value(response), response.version) == (3, "1.0.0")
        gate.set()


async def test_a_loaded_one_is_replaced_by_a_loaded_one(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        await one.settle((V1, LAZY))
        assert (await one.ask(1)).version == "1.0.0"
        before = one.host.lazy_versions()["arithmetic"]
        await one.settle((V2, LAZY))
        assert (one.status.state, one.status.serving) == (LoadState.READY, "arithmetic@2.0.0")
        assert (await one.ask(1)).version == "2.0.0"
        with pytest.raises(SalverError, match="taken away"):
            await eventually(lambda: before(make_request([[1, 1]])) is None)  # as long as the old pool answers
        await one.settle((V2, make_spec(generation=3)))
        assert one.host.lazy_versions() == {}


async def test_an_endpoint_that_is_undeployed_answers_those_who_wait_for_it(store, shelf) -> None:
    gate = threading.Event()
    async with lazily(store, shelf) as one:
        shelf.preparations["1.0.0"] = gate.wait
        await one.settle((V1, LAZY))
        waiting = one.ask(1)
        one.apply()
        with pytest.raises(SalverError, match="taken away"):
            await waiting
        gate.set()


def of_size(number: int, size: int) -> tuple[VersionManifest, Any]:
    manifest = msgspec.structs.replace(
        V1, model=f"m{number}", digest=f"{number:064x}", files=(FileEntry("m.onnx", "0" * 64, size),)
    )
    return manifest, make_spec(endpoint=f"e{number}", model=f"m{number}", load=Load.LAZY)


SMALL = [of_size(number, 1000) for number in range(2)]


async def test_two_hundred_versions_come_and_go_within_the_memory_of_ten(store, shelf, monkeypatch) -> None:
    monkeypatch.setattr("salver.runtime.host.private_bytes", lambda *_: 0)  # what artifacts have decides
    async with lazily(store, shelf, budget=10_000) as one:
        await one.settle(*(of_size(number, 1000) for number in range(200)))
        assert one.states() == ["cold"] * 200
        for number in (*range(200), *range(10)):
            assert value(await one.ask(number, f"e{number}")) == 2 * number + 1
            assert sum(row.size_bytes for row in one.host.status()) <= 10_000
        await one.host.settled()
        assert sorted(one.host.pools()) == sorted(f"e{number}" for number in range(10))
        assert one.states().count("cold") == 190


async def test_who_has_work_is_not_unloaded_and_nobody_who_asked_is_turned_away(store, shelf, monkeypatch) -> None:
    """Four versions in the memory of two, asked by many at once: every request is answered."""
    monkeypatch.setattr("salver.runtime.host.private_bytes", lambda *_: 0)
    async with lazily(store, shelf, budget=2000) as one:
        await one.settle(*(of_size(number, 1000) for number in range(4)))

        async def client(seed: int) -> None:
            for turn in range(25):
                number = (seed * 7 + turn) % 4
                assert (
                    value(await one.ask(turn, f"e{number}", deadline_s=SYSTEM_CLOCK.monotonic_s() + 20)) == 2 * turn + 1
                )

        await asyncio.wait_for(asyncio.gather(*map(client, range(12))), 30)
        counted = [one.metrics.version(f"e{number}", "1.0.0") for number in range(4)]
        assert sum(each.successes for each in counted) == 12 * 25
        assert sum(sum(each.failures.values()) for each in counted) == 0
        assert sum(each.loading.unloads for each in counted) > 4


async def test_a_version_that_runs_a_batch_stays_until_it_has_no_work(store, shelf, monkeypatch) -> None:
    monkeypatch.setattr("salver.runtime.host.private_bytes", lambda *_: 0)
    async with lazily(store, shelf, budget=1000) as one:
        pairs = [(manifest, msgspec.structs.replace(spec, placement=Placement.THREAD)) for manifest, spec in SMALL]
        await one.settle(*pairs)
        await one.ask(1, "e0")
        shelf.model("1.0.0").hold()
        running = one.ask(2, "e0")
        await eventually(shelf.model("1.0.0").entered.is_set)
        busy = shelf.model("1.0.0")
        other = one.ask(3, "e1")
        await asyncio.sleep(0.12)  # two looks for room
        assert (sorted(one.host.pools()), running.done(), other.done(), busy.unloads) == (["e0"], False, False, 0)
        busy.release()
        assert [value(answer) for answer in await asyncio.gather(running, other)] == [5, 7]
        assert sorted(one.host.pools()) == ["e1"]


async def test_a_caller_who_leaves_after_the_load_but_before_its_turn_is_not_computed_for(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        await one.settle((V1, make_spec(load=Load.LAZY, placement=Placement.THREAD, max_batch=1)))
        await one.ask(1)
        await one.host._put_to_rest("arithmetic")
        assert one.status.state is LoadState.COLD
        waiting = [one.ask(number) for number in (2, 3, 4)]
        await waiting[0]
        waiting[2].cancel()
        await waiting[1]
        await one.host.settled()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[2].inner is not None
        assert waiting[2].inner.cancelled()


async def test_a_version_on_trial_is_asked_what_the_one_before_was_asked_and_none_of_it_counts(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        assert value(await one.ask(42)) == 85
        await one.settle((V2, make_spec()))
        tried = [batch.tolist() for batch in shelf.model("2.0.0").batches]
        assert [[42, 42]] in tried
        counted = one.metrics.version("arithmetic", "2.0.0")
        assert (counted.successes, counted.rows, counted.batches) == (0, 0, {})
        assert value(await one.ask(1)) == 3
        assert counted.successes == 1
        # Not where the deployment says no, nor where asking twice may do harm.
        await one.settle((V1, make_spec(generation=5, warm_from_traffic=False)))
        assert [[1, 1]] not in [batch.tolist() for batch in shelf.model("1.0.0").batches]
        await one.ask(7)
        await one.settle((msgspec.structs.replace(V2, idempotent=False), make_spec(generation=6)))
        assert [[7, 7]] not in [batch.tolist() for batch in shelf.model("2.0.0").batches]


async def test_a_version_that_is_loaded_again_is_tried_on_what_it_was_asked_before(store, shelf) -> None:
    async with lazily(store, shelf) as one:
        await one.settle((V1, LAZY))
        assert value(await one.ask(42)) == 85
        one.host.pools()["arithmetic"].recent.due_s = 0.0  # as if a second had passed
        assert value(await one.ask(43)) == 87
        for number in (1, 2):
            await one.host._put_to_rest("arithmetic")
            assert one.status.state is LoadState.COLD
            assert value(await one.ask(number)) == 2 * number + 1
            tried = [batch.tolist() for batch in shelf.model("1.0.0").batches]
            assert tried.index([[42, 42]]) < tried.index([[43, 43]]) < tried.index([[number, number]])
            await one.host.settled()
        counted = one.metrics.version("arithmetic", "1.0.0")
        assert (loaded(shelf), counted.successes) == (3, 4)
        await one.host._put_to_rest("arithmetic")
        await one.settle((V1, make_spec(load=Load.LAZY, generation=2, warm_from_traffic=False)))
        await one.ask(3)
        assert [[42, 42]] not in [batch.tolist() for batch in shelf.model("1.0.0").batches]


async def test_inputs_that_a_version_no_longer_survives_keep_it_cold_once_only(store, shelf, monkeypatch) -> None:
    monkeypatch.setattr("salver.runtime.lazy._FIRST_PAUSE_S", 0.01)
    died = SalverError("LOAD_FAILED", "it did not survive")
    tried: list[int] = []

    async def rehearsed(_: object, samples: Any, *rest: object) -> None:
        tried.append(len(samples))
        raise died

    monkeypatch.setattr("salver.runtime.host.rehearse", rehearsed)
    async with lazily(store, shelf) as one:
        await one.settle((V1, LAZY))
        await one.ask(42)
        await one.host._put_to_rest("arithmetic")
        with pytest.raises(SalverError, match="LOAD_FAILED"):
            await one.ask(1)
        await eventually(one.host.is_ready)
        assert value(await one.ask(2)) == 5
        assert tried == [1]


async def test_a_stream_whose_reader_leaves_before_the_load_is_closed_without_a_word(clock) -> None:
    cold = LazyVersion(LAZY, V1, VersionMetrics(), clock, lambda: None)
    chunks = cold.open_stream(make_request([[1, 1]]))
    reader = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    chunks.close()


async def test_a_fault_with_one_who_waits_leaves_nobody_else_without_an_answer(store, shelf, clock) -> None:
    cold = LazyVersion(LAZY, V1, VersionMetrics(), clock, lambda: None)
    first, second, third = (cold(make_request([[n, n]])) for n in range(3))

    def inner(request: Any) -> Any:
        if request is first.request:
            raise RuntimeError("a fault of ours")
        given = asyncio.get_running_loop().create_future()
        given.set_result(Response("m", "1", None, 0, 1))
        return given

    cold.serve(inner)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await first
    assert [(await each).model for each in (second, third)] == ["m", "m"]


async def test_an_endpoint_that_goes_in_the_turn_in_which_its_load_ends_leaves_no_promise(store, shelf) -> None:
    async with lazily(store, shelf, budget=1000) as one:
        load_all = one.host._load_all

        async def and_then_gone(*args: Any) -> Any:
            pool = await load_all(*args)
            asyncio.get_running_loop().call_soon(one.apply)
            return pool

        one.host._load_all = and_then_gone
        one.apply((V1, make_spec()))
        await eventually(lambda: not one.host.names())
        await eventually(lambda: not one.host._retiring)
        assert (loaded(shelf), one.host._memory._promised) == (1, {})


async def test_what_a_version_could_not_answer_is_not_asked_of_its_successor(store, shelf) -> None:
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec()))
        with pytest.raises(SalverError, match="raised an exception"):
            await one.ask(RAISES)
        await one.settle((V2, make_spec()))
        assert RAISES not in np.concatenate(shelf.model("2.0.0").batches)
