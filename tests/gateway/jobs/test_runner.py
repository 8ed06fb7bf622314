"""What becomes of attempts: which failures are tried again, and how jobs make way for those who wait."""

import json

import pytest
from tests.gateway.jobs.test_door import start
from tests.gateway.wire import eventually

from salver.gateway.jobs.attempt import Answered, outcome_of
from salver.gateway.limits import Limits
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.jobs import JobLimits, JobState
from salver.storage.job_ledger import JobWriter
from salver.storage.job_steps import Claimed, Outcome
from salver.storage.job_view import find_jobs

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
    elif code in ("WORKER_LOST", "CONTROL_UNAVAILABLE"):
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
