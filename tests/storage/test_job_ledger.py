"""The job store on disk: what is acknowledged is there after kill -9, and damage is told, not hidden."""

import asyncio
import os
import sqlite3
import stat

import pytest
from tests.storage.job_stores import Bench, make_new

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits, JobState
from salver.storage import job_file
from salver.storage.job_file import open_jobs
from salver.storage.job_ledger import JobLedger, JobWriter
from salver.storage.job_schema import LAYOUT
from salver.storage.job_steps import Outcome, Wanted
from salver.storage.job_view import check_store
from salver.storage.jobs import JobStore
from salver.testing import ManualClock


def on_a_ledger(path, test, **limits):
    async def run():
        ledger = JobLedger(path, JobLimits(**limits), SYSTEM_CLOCK, "me")
        try:
            await asyncio.wait_for(test(ledger), 30)
        finally:
            await ledger.close()

    asyncio.run(run())


def test_there_is_no_file_before_the_first_job(tmp_path):
    async def test(ledger):
        assert not ledger.exists
        await ledger.accept(make_new())
        assert ledger.exists

    on_a_ledger(tmp_path / "jobs.db", test)
    assert stat.S_IMODE((tmp_path / "jobs.db").stat().st_mode) == 0o600


def test_a_job_goes_through_the_ledger(tmp_path):
    async def test(ledger):
        accepted = await ledger.accept(make_new())
        (job,) = await ledger.claim(Wanted({"digits": 10}, 1000))
        assert (await ledger.backlogs())[0].running == 1
        assert await ledger.settle(Outcome(job, JobState.DONE, {}, b"answer")) is JobState.DONE
        assert (await ledger.find(accepted.id)).state is JobState.DONE
        assert (await ledger.result(accepted.id)).body == b"answer"

    on_a_ledger(tmp_path / "jobs.db", test)


ACCEPT = """
import asyncio, os, sys
from pathlib import Path
from salver.clock import SYSTEM_CLOCK
from salver.protocol.jobs import JobLimits, NewJob
from salver.storage.job_ledger import JobLedger
from salver.storage.owners import this_process

async def main():
    ledger = JobLedger(Path(sys.argv[1]), JobLimits(), SYSTEM_CLOCK, this_process())
    while True:
        jobs = [NewJob(os.urandom(16), "t", "digits", "", {}, b"body") for _ in range(5)]
        for accepted in await asyncio.gather(*[ledger.accept(job) for job in jobs]):
            print(accepted.id.hex(), flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path, python):
    acknowledged = []
    for lines in (1, 7, 23):
        child = python(ACCEPT, tmp_path / "jobs.db")
        acknowledged += [bytes.fromhex(child.stdout.readline().strip()) for _ in range(lines)]
        child.kill()
        rest = child.stdout.read().split("\n")
        acknowledged += [bytes.fromhex(line) for line in rest if len(line) == 32]
    bench = Bench(tmp_path / "jobs.db", SYSTEM_CLOCK)
    assert all(bench.find(each) for each in acknowledged)
    assert {job.body for job in bench.claim(10_000)} == {b"body"}
    bench.connection.close()


def test_every_commit_is_synced_and_nobody_is_answered_before_it(tmp_path):
    """What kill -9 does not show: without these words of SQLite a power failure takes back what was acknowledged."""
    writer = JobWriter(tmp_path / "jobs.db", JobLimits(), SYSTEM_CLOCK, "me")
    ask, said = writer.store.connection.execute, []
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (2,)  # FULL: the log is synced in every COMMIT
    writer.store.connection.set_trace_callback(said.append)
    writer.run([(JobStore.accept, [make_new()])])
    assert (said[0], said[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    writer.close()


def test_a_file_that_is_no_store_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "jobs.db"
    path.write_bytes(b"this is no database" * 100)

    async def test(ledger):
        for _ in range(2):
            with pytest.raises(SalverError) as raised:
                await ledger.accept(make_new())
            assert raised.value.code == "CORRUPT_ARTIFACT"

    on_a_ledger(path, test)
    assert path.read_bytes() == b"this is no database" * 100
    with pytest.raises(SalverError, match="the job store is damaged"):
        check_store(path)


def test_a_store_put_in_the_place_of_a_damaged_one_is_used_without_a_restart(tmp_path):
    path = tmp_path / "jobs.db"
    path.write_bytes(b"this is no database" * 100)

    async def test(ledger):
        with pytest.raises(SalverError):
            await ledger.accept(make_new())
        path.unlink()
        assert (await ledger.accept(make_new())).created

    on_a_ledger(path, test)


def test_nothing_is_accepted_into_a_file_that_is_not_there_any_more(tmp_path):
    path = tmp_path / "jobs.db"

    async def test(ledger):
        await ledger.accept(make_new())
        for name in os.listdir(tmp_path):
            (tmp_path / name).unlink()
        with pytest.raises(SalverError, match="replaced by another file"):
            await ledger.accept(make_new())
        accepted = await ledger.accept(make_new())
        assert await ledger.find(accepted.id) is None or path.exists()

    on_a_ledger(path, test)
    assert check_store(path) == {"queued": 1}


def test_a_damaged_page_is_found(tmp_path):
    path = tmp_path / "jobs.db"
    bench = Bench(path, ManualClock())
    for _ in range(200):
        bench.accept(body=b"x" * 500)
    bench.connection.close()
    assert check_store(path) == {"queued": 200}
    data = bytearray(path.read_bytes())
    data[40 * 512 : -512] = os.urandom(len(data[40 * 512 : -512]))
    path.write_bytes(data)
    with pytest.raises(SalverError) as raised:
        check_store(path)
    assert raised.value.code == "CORRUPT_ARTIFACT"


def test_a_store_of_another_layout_is_refused(tmp_path):
    path = tmp_path / "jobs.db"
    open_jobs(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE facts SET value = '99' WHERE name = 'layout'")
    connection.close()
    with pytest.raises(SalverError, match=f"layout 99; this Salver knows {LAYOUT}") as raised:
        open_jobs(path)
    assert raised.value.code == "REFUSED_BY_POLICY"


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "jobs.db"
    small = (*job_file.PRAGMAS, "PRAGMA max_page_count = 60")

    async def test(ledger):
        monkeypatch.setattr(job_file, "PRAGMAS", small)
        kept, codes = [], set()
        for _ in range(20):
            try:
                kept.append((await ledger.accept(make_new(body=b"x" * 20_000))).id)
            except SalverError as error:
                codes.add(error.code)
        assert codes == {"STORAGE_FULL"}
        assert kept
        monkeypatch.setattr(job_file, "PRAGMAS", small[:-1])
        assert (await ledger.accept(make_new(body=b"x" * 20_000))).created
        for each in kept:
            assert (await ledger.find(each)).state is JobState.QUEUED

    on_a_ledger(path, test)


def test_two_that_open_a_new_store_at_once_both_succeed(tmp_path):
    async def test(ledger):
        other = JobLedger(tmp_path / "jobs.db", JobLimits(), SYSTEM_CLOCK, "other")
        both = await asyncio.gather(ledger.accept(make_new()), other.accept(make_new()))
        assert all(each.created for each in both)
        await other.close()

    on_a_ledger(tmp_path / "jobs.db", test)
