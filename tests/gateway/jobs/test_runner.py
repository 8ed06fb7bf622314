"""What becomes of attempts: which failures are tried again, and how jobs make way for those who wait."""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from tests.gateway.jobs.test_door import start
from tests.gateway.wire import eventually
from tests.storage.job_stores import make_new

from salver.gateway.jobs import runner as module
from salver.gateway.jobs.attempt import Answered, abandoned, begin, outcome_of
from salver.gateway.jobs.runner import JobRunner
from salver.gateway.limits import Limits
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.jobs import JobLimits, JobState
from salver.storage.job_ledger import JobLedger, JobWriter
from salver.storage.job_steps import Claimed, Outcome
from salver.storage.job_view import find_jobs
from salver.telemetry.job_metrics import JobMetrics
from salver.testing import ManualClock, make_manifest, make_request
from salver.testing import eventually as eventually_here

JOB = Claimed(1, b"\0" * 16, 2, "t", "toy", "", {}, b"")
LIMITS = JobLimits(backoff_s=4.0)


def test_an_answer_is_a_result():
    outcome = outcome_of(JOB, Answered({"content-type": "x"}, b"y"), LIMITS)
    assert outcome == Outcome(JOB, JobState.DONE, {"content-type": "x"}, b"y")


def test_a_result_that_is_too_large_fails_the_job():
    outcome = outcome_of(JOB, Answered({}, b"y" * 11), JobLimits(result_bytes=10))
    assert (outcome.state, outcome.error.code) == (JobState.FAILED, "BODY_TOO_LARGE")


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_only_what_passes_is_tried_again(code):
    outcome = outcome_of(JOB, SalverError(code, "it failed"), LIMITS)
    if code in ("QUEUE_FULL", "OVERLOADED", "NOT_READY"):
        assert (outcome.state, outcome.counts, outcome.pause_s) == (JobState.QUEUED, False, 2.0)
    elif code in ("WORKER_LOST", "CONTROL_UNAVAILABLE", "STORE_UNAVAILABLE"):
        assert (outcome.state, outcome.counts, outcome.pause_s) == (JobState.QUEUED, True, 4.0)
    else:
        assert outcome.state is JobState.FAILED
    assert outcome.error.code == code


@pytest.mark.parametrize("code", ["MODEL_ERROR", "MODEL_HUNG", "DEADLINE_EXCEEDED"])
def test_what_the_model_did_is_tried_again_where_that_is_wanted(code):
    limits = JobLimits(retry_model_errors=True)
    assert outcome_of(JOB, SalverError(code, "it failed"), limits).state is JobState.QUEUED
    assert outcome_of(JOB, SalverError("INVALID_JSON", "it is none"), limits).state is JobState.FAILED


def test_a_refusal_says_when_to_come_back():
    refusal = SalverError("OVERLOADED", "later", retry_after_s=30.0)
    assert outcome_of(JOB, refusal, LIMITS).pause_s == 30.0


def test_a_version_whose_requests_are_steps_is_not_asked_by_a_job_either_that_was_accepted_while_it_was_away():
    told = []
    contract = SimpleNamespace(target=SimpleNamespace(manifest=make_manifest(kind="sequence")))
    door = SimpleNamespace(prepare=lambda _, __: (contract, make_request([[0, 0]])))
    gateway = SimpleNamespace(clock=ManualClock(), refused=lambda _, error: told.append(error.code))
    begin(JOB, door, gateway, LIMITS, told.append)
    assert told[0] == "INVALID_PARAMETER"
    assert outcome_of(JOB, told[1], LIMITS).state is JobState.FAILED


@pytest.fixture(scope="module")
def jobs(serve_model):
    return start(serve_model(Limits(), jobs=JobLimits(backoff_s=0.01, attempts=2, in_flight=8)))


def fail_held(jobs, error):
    eventually(lambda: jobs.served.held.asked)
    _, answer = jobs.served.held.asked.pop(0)
    jobs.served.thread.run(lambda: answer.set_exception(error))


def test_a_job_whose_worker_died_runs_again(jobs):
    job = jobs.accepted("held")
    fail_held(jobs, SalverError("WORKER_LOST", "it died"))
    eventually(lambda: jobs.served.held.asked)
    assert jobs.show(job).json["attempts"] == 2
    jobs.served.answer_held()
    assert jobs.ended(job)["state"] == "done"


def test_a_job_that_is_lost_each_time_fails(jobs):
    job = jobs.accepted("held")
    for _ in range(2):
        fail_held(jobs, SalverError("WORKER_LOST", "it died"))
    shown = jobs.ended(job)
    assert (shown["state"], shown["attempts"], shown["error"]["code"]) == ("failed", 2, "WORKER_LOST")


def test_a_model_that_raises_is_not_asked_again(jobs):
    job = jobs.accepted("held")
    fail_held(jobs, SalverError("MODEL_ERROR", "it raised"))
    shown = jobs.ended(job)
    assert (shown["state"], shown["attempts"]) == ("failed", 1)


def test_a_fault_of_ours_is_logged_and_tells_the_client_nothing(jobs, no_faults):
    job = jobs.accepted("held")
    fail_held(jobs, ZeroDivisionError("secret"))
    shown = jobs.ended(job)
    assert shown["error"]["code"] == "INTERNAL"
    assert "secret" not in json.dumps(shown)
    assert len(no_faults) == 1
    no_faults.clear()


def test_while_somebody_waits_one_job_goes_on_at_a_time(jobs):
    plane = jobs.served.plane
    crowd = {"held": 5}
    waiting, plane.jobs._waiting = plane.jobs._waiting, lambda endpoint: crowd.get(endpoint, 0)
    try:
        accepted = [jobs.accepted("held") for _ in range(4)]
        for left in (3, 2):
            eventually(lambda: len(jobs.served.held.asked) == 1)
            jobs.served.answer_held()
            states = [jobs.show(job).json["state"] for job in accepted]
            assert states.count("queued") in (left, left - 1)
        crowd.clear()
        jobs.served.answer_held(2)
        assert {jobs.ended(job)["state"] for job in accepted} == {"done"}
    finally:
        plane.jobs._waiting = waiting


def test_an_unavailable_model_is_not_asked(jobs):
    held = jobs.served.held
    held.available = False
    job = jobs.accepted("held")
    assert jobs.show(job, "prefer: wait=1").json["state"] == "queued"
    assert jobs.show(job).json["attempts"] == 0
    held.available = True
    jobs.served.answer_held()
    assert jobs.ended(job)["state"] == "done"


def test_an_outcome_that_cannot_be_recorded_is_kept_until_it_can(jobs, monkeypatch):
    ledger = jobs.served.plane.jobs._ledger
    job = jobs.hold()
    settle, refused = ledger.settle, []

    def full(outcome):
        refused.append(outcome)
        future = jobs.served.thread.loop.create_future()
        future.set_exception(SalverError("STORAGE_FULL", "full"))
        return future

    monkeypatch.setattr(ledger, "settle", full)
    jobs.served.answer_held()
    eventually(lambda: refused)
    assert jobs.show(job).json["state"] == "running"
    monkeypatch.setattr(ledger, "settle", settle)
    assert jobs.ended(job)["state"] == "done"


def test_what_still_runs_at_the_end_is_given_back(serve_model):
    jobs = start(serve_model(Limits()))
    job = jobs.hold()
    plane = jobs.served.plane
    jobs.served.thread.run(lambda: plane.jobs.close(0.0))
    writer = JobWriter(plane.jobs._ledger._path, JobLimits(), jobs.served.gateway.clock, "test")
    (found,) = find_jobs(writer.store.connection, [bytes.fromhex(job)])
    writer.close()
    assert (found.state, found.attempts) == (JobState.QUEUED, 0)
    jobs.served.held.asked.clear()


# What comes back from the store in another order than it was asked for.


class Alone:
    """A runner without a door: its jobs run until the test settles them."""

    def __init__(self, path, monkeypatch, **limits):
        self.clock = ManualClock()
        self.limits = JobLimits(**limits)
        self.ledger = JobLedger(path, self.limits, self.clock, "me")
        self.metrics, self.ended, self.abandoned = JobMetrics(), [], []
        self.runner = JobRunner(
            self.ledger, self, None, self.limits, self.metrics, self.clock, lambda endpoint: 0, self.ended.append
        )
        self.runner._gateway = self
        self.runner._is_served = lambda endpoint: True
        monkeypatch.setattr(module, "begin", lambda *_: self)

    answered = False

    def names(self):
        return ["digits"]

    def abandon(self):
        self.abandoned.append(True)

    async def accept(self, count):
        for _ in range(count):
            await self.ledger.accept(make_new())
        self.runner.come("digits")
        await eventually_here(lambda: len(self.runner._held) == count)
        return [job for job, _ in self.runner._held.values()]

    def counts(self):
        runner = self.runner
        return len(runner._held), runner._running["digits"], self.metrics.done["digits"], len(self.ended)


def on_a_runner(path, monkeypatch, test, **limits):
    async def run():
        alone = Alone(path, monkeypatch, **limits)
        try:
            await asyncio.wait_for(test(alone), 30)
        finally:
            await alone.ledger.close()

    asyncio.run(run())


def done(job):
    return Outcome(job, JobState.DONE, {}, b"answer")


def test_an_outcome_beside_a_renewal_in_one_transaction_counts(tmp_path, monkeypatch):
    async def test(alone):
        first, second = await alone.accept(2)
        alone.runner._settle(done(first))
        alone.clock.advance(1.0)
        alone.runner._tend()
        alone.runner._settle(done(second))
        await eventually_here(lambda: len(alone.ended) == 2)
        assert alone.counts() == (0, 0, 2, 2)

    on_a_runner(tmp_path / "jobs.db", monkeypatch, test)


def test_a_job_given_back_and_claimed_in_one_transaction_holds_one_place(tmp_path, monkeypatch):
    async def test(alone):
        first, second = await alone.accept(2)
        alone.runner._settle(done(first))
        alone.runner.come("digits")
        assert alone.runner._claiming
        alone.runner._settle(abandoned(second))
        await eventually_here(lambda: alone.ended and not alone.runner._claiming)
        assert alone.counts() == (1, 1, 1, 1)
        ((again, _),) = alone.runner._held.values()
        assert again.id == second.id
        alone.runner._settle(done(again))
        await eventually_here(lambda: len(alone.ended) == 2)
        assert alone.counts() == (0, 0, 2, 2)

    on_a_runner(tmp_path / "jobs.db", monkeypatch, test)


def test_a_disk_that_stands_still_for_longer_than_a_lease_costs_no_job_of_ones_own(tmp_path, monkeypatch):
    async def test(alone):
        (job,) = await alone.accept(1)
        await eventually_here(lambda: not alone.runner._claiming)
        # Whoever holds the lock of the file is as slow as the disk.
        blocker = JobWriter(tmp_path / "jobs.db", alone.limits, alone.clock, "other")
        blocker.store.connection.execute("BEGIN IMMEDIATE")
        asked = []
        tend = alone.ledger.tend
        monkeypatch.setattr(alone.ledger, "tend", lambda held: asked.append(list(held)) or tend(held))
        for _ in range(40):
            alone.clock.advance(1.0)
            alone.runner._look()
        alone.runner.stop()
        assert asked == [[job.seq]]
        blocker.store.connection.execute("ROLLBACK")
        blocker.close()
        await alone.runner._tending
        assert alone.metrics.retried.total() == 0
        alone.runner._settle(done(job))
        await eventually_here(lambda: alone.ended)
        assert alone.counts() == (0, 0, 1, 1)

    on_a_runner(tmp_path / "jobs.db", monkeypatch, test, lease_s=30.0)


def test_nothing_is_tended_while_a_claim_brings_jobs_that_only_the_store_knows(tmp_path, monkeypatch):
    async def test(alone):
        await alone.ledger.accept(make_new())
        alone.runner.come("digits")
        alone.clock.advance(1.0)
        alone.runner._tend()
        assert alone.runner._tending is None
        await eventually_here(lambda: alone.runner._tending is not None and alone.runner._tending.done())
        assert (await alone.runner._tending).lost == set()
        assert alone.counts()[0] == 1

    on_a_runner(tmp_path / "jobs.db", monkeypatch, test)


def test_what_a_claim_brings_at_the_very_end_is_given_back_and_was_no_attempt(tmp_path, monkeypatch):
    async def test(alone):
        accepted = await alone.ledger.accept(make_new())
        alone.runner.come("digits")
        assert alone.runner._claiming
        await alone.runner.close(0.0)
        with contextlib.closing(JobWriter(tmp_path / "jobs.db", alone.limits, alone.clock, "heir")) as writer:
            (found,) = find_jobs(writer.store.connection, [accepted.id])
        assert (found.state, found.attempts) == (JobState.QUEUED, 0)

    on_a_runner(tmp_path / "jobs.db", monkeypatch, test)


def test_an_outcome_that_could_not_be_recorded_by_the_end_disturbs_nobody(tmp_path, monkeypatch):
    async def test(alone):
        (job,) = await alone.accept(1)
        await alone.runner.close(0.0)
        alone.runner._settle(done(job))
        assert alone.metrics.done.total() == 0

    on_a_runner(tmp_path / "jobs.db", monkeypatch, test)
