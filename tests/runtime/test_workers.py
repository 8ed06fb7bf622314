"""Real worker processes, and what becomes of requests when they die, hang or misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.runtime.workers import MARKED, Serving, alive, free, serving
from tests.signing import KEY, signed

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.frames import ARENA_BYTES, SHARED_ABOVE_BYTES
from salver.runtime.pool import Pool
from salver.testing import FREE_WIDTH, ManualClock, eventually, make_request


async def test_a_worker_answers_in_a_process_of_its_own(store) -> None:
    manifest = free(store, "if (x == 7).any(): x = np.full_like(x, os.getpid())")
    async with serving(store, manifest) as one:
        assert await one.answer(3) == 7
        assert await one.answer(7) == 2 * one.pid + 1 != 2 * os.getpid() + 1
        assert one.metrics.successes == 2


DEATHS = {
    "aborts": ("os.abort()", "signal SIGABRT"),
    "exits": ("sys.exit(0)", "exit code 0"),
    "exits with threads left": (
        "threading.Thread(target=threading.Event().wait).start(); sys.exit(3)",
        "exit code 3",
    ),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
}


@pytest.mark.parametrize(("action", "cause"), DEATHS.values(), ids=DEATHS.keys())
async def test_a_model_that_ends_its_worker_costs_only_the_request_that_did_it(store, action, cause) -> None:
    manifest = free(store, MARKED.format(value=13, action=action), idempotent=False)
    async with serving(store, manifest) as one:
        first = one.pid
        with pytest.raises(SalverError) as raised:
            await one.ask(13)
        assert raised.value.code == "WORKER_LOST"
        assert cause in raised.value.message
        assert await one.answer(1) == 3
        assert one.pid != first
        assert one.replica.restarts == 1
        assert not alive(first)


async def test_bad_input_is_told_to_its_sender_alone_and_in_the_models_words(store) -> None:
    action = "raise salver.BadInputError('13 brings\\n bad luck')"
    async with serving(store, free(store, MARKED.format(value=13, action=action))) as one:
        results = await asyncio.gather(one.ask(1), one.ask(13), one.ask(2), return_exceptions=True)
        assert (results[1].code, results[1].message) == ("BAD_INPUT", "13 brings  bad luck")
        assert [results[at].array("y")[0, 0].item() for at in (0, 2)] == [3, 5]
        assert one.metrics.failures == {"BAD_INPUT": 1}
        assert one.replica.restarts == 0


async def test_poison_is_refused_after_two_workers_and_its_batch_mates_are_answered(store) -> None:
    manifest = free(store, MARKED.format(value=13, action="os.abort()"))
    clock = ManualClock()
    async with serving(store, manifest, clock=clock) as one:
        mates = [one.ask(1), one.ask(13), one.ask(2)]
        await eventually(lambda: one.replica.restarts == 1)
        clock.advance(61)  # so that the second death, too, is followed by a start at once
        results = await asyncio.gather(*mates, return_exceptions=True)
        assert results[1].code == "POISON_INPUT"
        assert [results[at].array("y")[0, 0].item() for at in (0, 2)] == [3, 5]
        assert await one.answer(4) == 9


async def test_a_worker_that_died_while_idle_costs_nothing(store) -> None:
    async with serving(store, free(store, "")) as one:
        os.kill(one.pid, signal.SIGKILL)
        answers = [one.answer(value) for value in range(20)]
        assert await asyncio.gather(*answers) == [2 * value + 1 for value in range(20)]


class SilentWorker:
    """A worker that takes batches and never speaks."""

    pid = 1

    def __init__(self) -> None:
        self.batches = 0

    def run(self, _: Any) -> None:
        self.batches += 1

    def kill(self) -> None:
        pass

    async def stop(self) -> None:
        pass


async def test_what_a_given_up_worker_still_says_has_no_effect(store) -> None:
    one = Serving(store, free(store, ""), SYSTEM_CLOCK, 10.0, hang_s=0.05)
    worker: Any = SilentWorker()
    one.replica._worker = worker
    one.pool.add(one.replica)
    with pytest.raises(SalverError, match="did not return"):
        await one.ask(1)
    one.replica.answered({"y": np.ones((1, 2), np.float32)}, 0.1)
    one.replica.raised("late", "")
    one.replica.bad_output("late")
    assert not one.pool.available
    assert one.metrics.failures == {"MODEL_HUNG": 1}


async def test_a_worker_on_its_way_out_gets_no_batch(store) -> None:
    one = Serving(store, free(store, ""), SYSTEM_CLOCK, 10.0)
    worker: Any = SilentWorker()
    one.replica._worker = worker
    one.pool.add(one.replica)
    one.replica.leaving()
    waiting = one.ask(1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (worker.batches, one.pool.waiting) == (0, 1)
    waiting.cancel()
    await one.pool.stop(SalverError("NOT_READY", "the test is over"))


async def test_a_death_is_told_as_leaving_and_then_as_died_with_its_cause(store) -> None:
    async with serving(store, free(store, "")) as one:
        told: list[str] = []
        worker: Any = one.replica._worker
        leaving, died = one.replica.leaving, one.replica.died
        one.replica.leaving = lambda: told.append("leaving") or leaving()  # type: ignore[method-assign]
        one.replica.died = lambda cause: told.append(cause) or died(cause)  # type: ignore[method-assign]
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: one.replica.restarts == 1 and one.replica.pid)
        assert told == ["leaving", "signal SIGKILL"]


async def test_processes_a_model_started_end_with_its_worker(store, tmp_path) -> None:
    body = f"""
    if (x == 5).any():
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
        open({str(tmp_path / "child")!r}, "w").write(str(pid))
    if (x == 6).any():
        os._exit(1)
    """
    async with serving(store, free(store, body, idempotent=False)) as one:
        await one.answer(5)
        child = int((tmp_path / "child").read_text())
        assert alive(child)
        with pytest.raises(SalverError, match="exit code 1"):
            await one.ask(6)
        await eventually(lambda: not alive(child))
        assert await one.answer(1) == 3


async def test_an_endless_loop_is_answered_killed_and_replaced(store) -> None:
    manifest = free(store, MARKED.format(value=13, action="\n            while True: pass"))
    async with serving(store, manifest, hang_s=0.3) as one:
        first = one.pid
        stuck = one.ask(13)
        await eventually(lambda: one.pool.running)
        waiting = one.ask(1)
        with pytest.raises(SalverError) as raised:
            await stuck
        assert raised.value.code == "MODEL_HUNG"
        assert (await waiting).array("y")[0, 0] == 3
        assert not alive(first)
        assert one.metrics.failures == {"MODEL_HUNG": 1}


async def test_a_stopped_worker_is_noticed_by_its_silence(store) -> None:
    async with serving(store, free(store, ""), silence_s=1.5) as one:
        first = one.pid
        os.kill(first, signal.SIGSTOP)
        answer = one.answer(1)
        assert await asyncio.wait_for(answer, 10.0) == 3
        assert one.pid != first


async def test_a_model_that_takes_too_much_memory_gets_an_exception(store) -> None:
    manifest = free(store, MARKED.format(value=13, action="np.ones(2**31, np.uint8)"))
    async with serving(store, manifest, worker_memory_bytes=512 * 2**20) as one:
        with pytest.raises(SalverError) as raised:
            await one.ask(13)
        assert raised.value.code == "MODEL_ERROR"
        assert await one.answer(1) == 3
        assert one.replica.restarts == 0


@pytest.mark.parametrize("size_bytes", [64, SHARED_ABOVE_BYTES, SHARED_ABOVE_BYTES + 4, ARENA_BYTES, ARENA_BYTES + 4])
async def test_tensors_of_any_size_come_back_as_they_should(store, size_bytes) -> None:
    rows = np.random.default_rng(1).random((1, size_bytes // 4), dtype=np.float32)
    async with serving(store, free(store, "")) as one:
        response = await one.pool(make_request(rows))
        np.testing.assert_array_equal(response.array("y"), 2 * rows + 1)


@pytest.mark.parametrize("value", ["np.zeros(1, x.dtype)", "np.array(['large'], object)"], ids=["numbers", "texts"])
async def test_an_answer_too_large_for_its_worker_fails_its_request_and_not_the_worker(store, value) -> None:
    large = f"return {{'y': np.broadcast_to({value}, (2**40,))}}"
    async with serving(store, free(store, MARKED.format(value=13, action=large))) as one:
        pid = one.pid
        with pytest.raises(SalverError, match=r"it and its copies do not fit into the worker's \d+ bytes") as raised:
            await one.ask(13)
        assert raised.value.code == "BAD_MODEL_OUTPUT"
        assert (await one.answer(1), one.pid) == (3, pid)


async def test_a_worker_that_sends_a_large_answer_says_so_before_all_of_it_is_there(store, monkeypatch) -> None:
    heard = []
    monkeypatch.setattr(Pool, "arriving", lambda pool, replica: heard.append(replica))
    rows = ARENA_BYTES // 8 + 1  # of two numbers of four bytes
    manifest = free(store, MARKED.format(value=13, action=f"x = np.zeros(({rows}, 2), x.dtype)"))
    async with serving(store, manifest) as one:
        with pytest.raises(SalverError, match="has shape"):
            await one.ask(13)
        assert len(heard) > 2
        assert set(heard) == {one.replica}


async def test_an_answer_outlives_the_shared_memory_it_came_through(store) -> None:
    rows = np.random.default_rng(1).random((2, 2**16), dtype=np.float32)
    async with serving(store, free(store, "")) as one:
        first = await one.pool(make_request(rows))
        await one.pool(make_request(-rows))
        np.testing.assert_array_equal(first.array("y"), 2 * rows + 1)


async def test_what_a_model_prints_and_how_it_answers_wrongly_corrupts_nothing(store, capfd) -> None:
    body = """
    print("x" * 70_000)
    os.write(1, b"\\x01\\x00\\x00\\x00" * 100)
    kind = x[0, 0]
    if kind == 10: return None
    if kind == 11: return {"y": [1.0]}
    if kind == 12: return {"y": x.astype(complex)}
    if kind == 13: return {1: x}
    if kind == 14: return {"y": np.array([[None]])}
    if kind == 15: return {"y": np.array([["\\ud800"]], dtype=object)}
    if kind == 16: raise ValueError("\\ud800")
    if kind == 17: raise SystemError
    """
    async with serving(store, free(store, body)) as one:
        for kind, code in [(kind, "BAD_MODEL_OUTPUT") for kind in range(10, 16)] + [
            (16, "MODEL_ERROR"),
            (17, "MODEL_ERROR"),
        ]:
            with pytest.raises(SalverError) as raised:
                await one.ask(kind)
            assert raised.value.code == code, kind
            assert "Error" not in raised.value.message
        assert await one.answer(1) == 3
        assert one.replica.restarts == 0
    assert capfd.readouterr().out == ""


async def test_a_worker_that_speaks_nonsense_is_replaced(store) -> None:
    body = "if (x == 13).any(): os.write(int(sys.argv[1]), b'nonsense' * 10); time.sleep(60)"
    async with serving(store, free(store, body, idempotent=False)) as one:
        with pytest.raises(SalverError) as raised:
            await one.ask(13)
        assert raised.value.code == "WORKER_LOST"
        assert await one.answer(1) == 3


async def test_a_worker_inherits_no_secrets_and_writes_only_to_its_own_directory(store, monkeypatch) -> None:
    monkeypatch.setenv("SALVER_SECRET", "hush")
    body = """
    if "SALVER_SECRET" in os.environ: os.abort()
    (here / "note").write_text("mine")
    """
    async with serving(store, free(store, body)) as one:
        assert await one.answer(1) == 3
        (room,) = store.scratch.iterdir()
        assert [path.read_text() for path in room.rglob("note")] == ["mine"]


async def test_a_version_that_is_refused_leaves_nothing_behind(store) -> None:
    manifest = store.version({"model.py": "raise RuntimeError('not today')"}, signature=FREE_WIDTH)
    one = Serving(store, manifest, SYSTEM_CLOCK, 10.0)
    with pytest.raises(SalverError) as raised:
        await one.replica.launch()
    assert raised.value.code == "LOAD_FAILED"
    assert "not today" not in str(raised.value)
    assert raised.value.cause == "RuntimeError: not today (model.py:1 in <module>)"
    assert (one.replica.pid, one.replica.restarts) == (None, 0)
    assert list(store.scratch.iterdir()) == []


async def test_a_version_that_ends_its_worker_while_it_loads_is_refused_with_the_cause(store) -> None:
    manifest = store.version({"model.py": "import os; os.abort()"}, signature=FREE_WIDTH)
    one = Serving(store, manifest, SYSTEM_CLOCK, 10.0)
    with pytest.raises(SalverError, match="signal SIGABRT") as raised:
        await one.replica.launch()
    assert raised.value.code == "LOAD_FAILED"
    assert list(store.scratch.iterdir()) == []


@pytest.mark.parametrize("call", ["os.pidfd_open", "subprocess.Popen", "tempfile.mkdtemp", "socket.socketpair"])
async def test_a_start_that_fails_half_way_leaves_nothing(store, monkeypatch, call) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    one = Serving(store, free(store, ""), SYSTEM_CLOCK, 10.0)
    before = (taken(), children())
    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="Too many"):
        await asyncio.wait_for(one.replica.launch(), 5.0)
    monkeypatch.undo()
    await eventually(lambda: (taken(), children()) == before)
    assert list(store.scratch.iterdir()) == []


async def test_a_load_that_is_cancelled_leaves_no_process(store) -> None:
    manifest = store.version({"model.py": "import time; time.sleep(600)"}, signature=FREE_WIDTH)
    one = Serving(store, manifest, SYSTEM_CLOCK, 10.0)
    before = children()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await one.replica.launch()
    assert children() == before
    assert list(store.scratch.iterdir()) == []
    assert one.replica.restarts == 0


def children() -> set[int]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):
            found |= set(map(int, path.read_text().split()))
    return found


def taken() -> int:
    """How many sockets, memory files and process descriptors are open."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(link.startswith(("socket:", "/memfd:", "anon_inode:[pidfd]")) for link in links)


def held(store) -> tuple[int, int, int]:
    return taken(), len(children()), len(list(store.scratch.iterdir()))


async def test_many_restarts_leak_neither_files_nor_memory_nor_processes(store) -> None:
    clock = ManualClock()
    async with serving(store, free(store, ""), clock=clock) as one:
        for restart in range(20):
            clock.advance(61)
            os.kill(one.pid, signal.SIGKILL)
            await eventually(lambda restart=restart: one.replica.restarts == restart + 1 and one.replica.pid)
            if restart == 1:  # the first one opens what later ones use again
                before = held(store)
        # No more than that; what others in this process hold may have become less.
        await eventually(lambda: all(now <= then for now, then in zip(held(store), before, strict=True)))
        assert await one.answer(1) == 3


async def test_after_many_deaths_the_version_is_unavailable_until_a_worker_is_ready(store, monkeypatch) -> None:
    monkeypatch.setattr("salver.runtime.worker_replica.restart_delay_s", lambda deaths: 0.0)
    manifest = free(store, MARKED.format(value=13, action="os.abort()"), idempotent=False)
    async with serving(store, manifest) as one:
        for _ in range(4):
            with pytest.raises(SalverError):
                await one.ask(13)
            assert await one.answer(1) == 3
        with pytest.raises(SalverError):
            await one.ask(13)
        await eventually(lambda: one.pool._unavailable)
        assert not one.pool.available
        with pytest.raises(SalverError, match="died 5 times within a minute") as raised:
            one.ask(1)
        assert raised.value.code == "NOT_READY"
        await eventually(lambda: one.pool.available)
        assert await one.answer(1) == 3


PARENT = """
import asyncio, pathlib, sys, threading
from salver.clock import SYSTEM_CLOCK
from salver.runtime.pool import Pool
from salver.runtime.provenance import Provenance
from salver.runtime.worker_replica import WorkerReplica
from salver.security.keys import TrustedKeys
from salver.storage.blobs import BlobStore
from salver.protocol.tables import VersionManifest
from salver.telemetry.metrics import VersionMetrics
from salver.testing import make_spec
import msgspec

async def main():
    manifest = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=VersionManifest)
    pool = Pool(make_spec(), manifest, VersionMetrics(), SYSTEM_CLOCK)
    blobs, scratch = map(pathlib.Path, sys.argv[2:4])
    trusted = TrustedKeys.of((sys.argv[4].encode(),))
    replica = WorkerReplica(pool, BlobStore(blobs), scratch, SYSTEM_CLOCK, Provenance(lambda: trusted))
    await replica.launch()
    print(replica.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_worker_dies_with_its_server(store, tmp_path) -> None:
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(signed(free(store, ""))))
    paths = [tmp_path / "manifest.json", store.blobs_path, store.scratch]
    command = [sys.executable, "-c", PARENT, *paths, KEY.public.pem.decode()]
    parent = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE)
    worker = 0
    try:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        # Not even a worker that cannot act itself outlives its server.
        os.kill(worker, signal.SIGSTOP)
        parent.kill()
        parent.wait()
        await eventually(lambda: not alive(worker), within_s=5.0)
    finally:
        if worker and alive(worker):
            os.kill(worker, signal.SIGKILL)
        parent.kill()
        parent.wait()
        parent.stdout.close()
