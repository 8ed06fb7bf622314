from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import Placement, RuntimeOptions
from salver.runtime.curve import INLINE_BELOW_S
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.pool import Pool
from salver.runtime.recorder import FlightRecorder, read_recorder
from salver.testing import RAISES, ComputableModel, ManualClock, eventually, make_request


@pytest.fixture
def recorder(tmp_path: Path) -> FlightRecorder:
    return FlightRecorder(tmp_path / "flight")


class Serving:
    """A pool with one replica in this process."""

    def __init__(self, pool: Pool, clock: ManualClock, recorder: FlightRecorder) -> None:
        self.model = ComputableModel()
        self.hung: list[Pool] = []
        self.pool = pool
        self.replica = InProcessReplica(pool, self.model, clock, recorder, self.hung.append)
        pool.add(self.replica)

    def ask(self, *values: float) -> asyncio.Future[Any]:
        return self.pool(make_request([[value, value] for value in values]))


@pytest.fixture
def serve(make_pool, clock, recorder) -> Callable[..., Serving]:
    return lambda **spec: Serving(make_pool(**spec), clock, recorder)


@pytest.mark.parametrize("placement", [Placement.INLINE, Placement.THREAD])
async def test_a_batch_is_computed_where_the_placement_says(serve, placement) -> None:
    serving = serve(placement=placement)
    threads = []
    serving.model.answer = lambda outputs: threads.append(threading.current_thread()) or outputs
    response = await serving.ask(1, 2)
    assert response.array("y").tolist() == [[3, 3], [5, 5]]
    assert (threads[0] is threading.main_thread()) == (placement is Placement.INLINE)


async def test_inline_the_loop_turns_between_two_batches(serve) -> None:
    serving = serve(placement=Placement.INLINE, max_batch=1)
    turns = []
    loop = asyncio.get_running_loop()
    serving.model.answer = lambda outputs: turns.append("batch") or outputs

    def tick() -> None:
        turns.append("turn")
        if len(turns) < 20:
            loop.call_soon(tick)

    loop.call_soon(tick)
    await asyncio.gather(*(serving.ask(value) for value in range(4)))
    batches = [at for at, what in enumerate(turns) if what == "batch"]
    assert len(batches) == 4
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(batches))


async def test_auto_follows_the_measured_time(serve, clock) -> None:
    serving = serve()
    assert serving.replica.placement is Placement.THREAD, "before anything was measured"

    def take(seconds: float) -> None:
        serving.model.answer = lambda outputs: clock.advance(seconds) or outputs

    take(INLINE_BELOW_S / 10)
    await serving.ask(1)
    await serving.ask(1)
    assert serving.replica.placement is Placement.INLINE
    take(INLINE_BELOW_S * 10)
    for _ in range(40):
        await serving.ask(1)
    assert serving.replica.placement is Placement.THREAD


@pytest.mark.parametrize("placement", [Placement.INLINE, Placement.THREAD])
async def test_none_is_a_wrong_answer_and_no_exception(serve, placement) -> None:
    serving = serve(placement=placement)
    serving.model.answer = lambda _: None
    futures = [serving.ask(1), serving.ask(2)]
    for future in futures:
        with pytest.raises(SalverError, match="answered a NoneType") as raised:
            await future
        assert raised.value.code == "BAD_MODEL_OUTPUT"
    assert len(serving.model.batches) == 1


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("it does not say")


@pytest.mark.parametrize("placement", [Placement.INLINE, Placement.THREAD])
@pytest.mark.parametrize("error", [Unspeakable(), ValueError("\ud800"), MemoryError(), RecursionError("x" * 10**6)])
async def test_whatever_a_model_raises_it_is_an_answer(serve, placement, error) -> None:
    serving = serve(placement=placement)

    def fail(_: object) -> None:
        raise error

    serving.model.answer = fail
    with pytest.raises(SalverError) as raised:
        await serving.ask(1)
    assert raised.value.code == "MODEL_ERROR"
    serving.model.answer = lambda outputs: outputs
    assert (await serving.ask(1)).array("y").tolist() == [[3, 3]]


async def test_a_raising_row_fails_alone_in_a_thread_too(serve) -> None:
    serving = serve(placement=Placement.THREAD)
    good, bad, good_too = serving.ask(1), serving.ask(RAISES), serving.ask(2)
    results = await asyncio.gather(good, bad, good_too, return_exceptions=True)
    assert [getattr(result, "code", "") for result in results] == ["", "MODEL_ERROR", ""]


async def test_a_hang_fails_the_batch_and_is_reported_once(serve, clock, tmp_path) -> None:
    serving = serve(placement=Placement.THREAD, hang_s=0.5)
    serving.model.hold()
    stuck = serving.ask(1)
    await eventually(serving.model.entered.is_set)
    waiting = serving.ask(2)
    clock.advance(0.6)
    with pytest.raises(SalverError) as raised:
        await stuck
    assert raised.value.code == "MODEL_HUNG"
    with pytest.raises(SalverError, match="hung in the server process"):
        await waiting
    assert serving.hung == [serving.pool]
    assert serving.pool.replicas == []
    assert not serving.pool.available
    assert read_recorder(tmp_path / "flight")[1] == {"ab" * 32}, "it still computes"
    serving.model.release()
    await eventually(lambda: serving.model.unloads)
    assert read_recorder(tmp_path / "flight")[1] == set()
    await serving.pool.stop(SalverError("NOT_READY", "over"))
    assert serving.model.unloads == 1


async def test_with_another_replica_the_queue_moves_on_after_a_hang(serve, clock, recorder) -> None:
    serving = serve(placement=Placement.THREAD, hang_s=0.5)
    serving.model.hold()
    stuck = serving.ask(1)
    await eventually(serving.model.entered.is_set)
    serving.pool.add(InProcessReplica(serving.pool, ComputableModel(), clock, recorder, serving.hung.append))
    clock.advance(0.6)
    with pytest.raises(SalverError):
        await stuck
    assert (await serving.ask(2)).array("y").tolist() == [[5, 5]]
    serving.model.release()


async def test_stopping_frees_the_version_off_the_loop(serve) -> None:
    serving = serve(placement=Placement.INLINE)
    threads = []
    serving.model.unload = lambda: threads.append(threading.current_thread())
    await serving.ask(1)
    await serving.pool.stop(SalverError("NOT_READY", "over"))
    await eventually(lambda: threads)
    assert threads[0] is not threading.main_thread()
    await eventually(lambda: not threads[0].is_alive())


async def test_stopping_does_not_wait_for_a_batch_that_runs(serve) -> None:
    serving = serve(placement=Placement.THREAD)
    serving.model.hold()
    running = serving.ask(1)
    await eventually(serving.model.entered.is_set)
    await asyncio.wait_for(serving.pool.stop(SalverError("NOT_READY", "over")), 1.0)
    assert running.exception().code == "NOT_READY"
    assert serving.model.unloads == 0
    serving.model.release()
    await eventually(lambda: serving.model.unloads == 1)


async def test_an_impossible_processor_to_pin_to_is_no_reason_to_die(serve) -> None:
    serving = serve(placement=Placement.THREAD, runtime=RuntimeOptions(pin=(100_000,)))
    assert (await serving.ask(1)).array("y").tolist() == [[3, 3]]


async def test_replicas_beyond_the_recorders_slots_run_all_the_same(make_pool, clock, recorder) -> None:
    pool = make_pool()
    replicas = [InProcessReplica(pool, ComputableModel(), clock, recorder, lambda _: None) for _ in range(70)]
    for replica in replicas:
        pool.add(replica)
    assert (await pool(make_request([[1, 1]]))).array("y").tolist() == [[3, 3]]
    await pool.stop(SalverError("NOT_READY", "over"))
