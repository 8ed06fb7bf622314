"""`salver jobs` and `salver webhook`, on a home that nobody serves."""

import pytest
from tests.storage.job_stores import Bench

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobState
from salver.storage.job_steps import Outcome


@pytest.fixture
def store(made):
    bench = Bench(made / "jobs.db", SYSTEM_CLOCK)
    yield bench
    bench.connection.close()


def test_a_home_without_jobs_has_none(salver, made):
    assert salver("jobs", "list").out == "no jobs\n"
    assert salver("jobs", "list", "--json").json == {"jobs": [], "next": None}
    assert salver("jobs", "show", "0" * 32, "--json").error["code"] == "NOT_FOUND"
    assert not (made / "jobs.db").exists()


def test_jobs_are_listed_by_endpoint_and_state(salver, store):
    failed, waiting = store.accept(tenant="acme").id.hex(), store.accept(tenant="", endpoint="other").id.hex()
    (job,) = store.claim()
    store.settle(Outcome(job, JobState.FAILED, error=SalverError("MODEL_ERROR", "it raised")))
    lines = salver("jobs", "list").out.splitlines()
    assert lines[0].split() == ["id", "endpoint", "tenant", "state", "attempts", "accepted", "error"]
    assert lines[1].split()[:5] == [waiting, "other", "-", "queued", "0"]
    assert lines[2].split()[:5] == [failed, "digits", "acme", "failed", "1"]
    assert lines[2].endswith("MODEL_ERROR")
    assert [row["id"] for row in salver("jobs", "list", "--state", "failed", "--json").json["jobs"]] == [failed]
    assert [row["id"] for row in salver("jobs", "list", "--endpoint", "other", "--json").json["jobs"]] == [waiting]
    shown = salver("jobs", "show", failed).out
    assert "MODEL_ERROR: it raised" in shown
    assert "tenant    acme" in shown


def test_a_long_list_says_how_to_go_on(salver, store):
    accepted = [store.accept().id.hex() for _ in range(3)]
    done = salver("jobs", "list", "--limit", "2")
    assert f"--after {accepted[1]}" in done.err
    assert accepted[0] in salver("jobs", "list", "--after", accepted[1]).out


def test_a_job_is_cancelled(salver, store):
    job = store.accept().id.hex()
    assert salver("jobs", "cancel", job).out == f"job {job} is cancelled\n"
    assert store.claim() == []
    assert salver("jobs", "cancel", "f" * 32, "--json").error["code"] == "NOT_FOUND"


def test_an_odd_state_is_refused(salver, store):
    done = salver("jobs", "list", "--state", "lost", "--json")
    assert (done.code, done.error["code"]) == (1, "INVALID_PARAMETER")


def test_a_webhook_is_made_listed_and_removed(salver, home):
    made = salver("webhook", "create", "orders", "https://hooks.example.com/x", "--tenant", "acme")
    assert made.out.startswith("whsec_")
    listed = salver("webhook", "list").out
    assert listed.splitlines()[1].split()[:4] == ["orders", "https://hooks.example.com/x", "acme", "no"]
    assert made.out.strip() not in listed
    assert salver("webhook", "remove", "orders").out == "removed orders (https://hooks.example.com/x)\n"
    assert salver("webhook", "list").out == "no webhooks\n"
    assert [row["action"] for row in salver("audit", "--json").json][-2:] == ["create_webhook", "remove_webhook"]


def test_a_webhook_inside_needs_a_word(salver, home):
    for url, code in (("https://127.0.0.1:9/", "REFUSED_BY_POLICY"), ("http://a.example/", "INVALID_SETTING")):
        assert salver("webhook", "create", "orders", url, "--json").error["code"] == code
    assert salver("webhook", "create", "orders", "http://127.0.0.1:9/", "--allow-private").code == 0


def test_the_doctor_counts_jobs_and_finds_damage(salver, store, made):
    store.accept()
    store.accept()
    rows = {row["check"]: row for row in salver("doctor", "--json").json}
    assert rows["job store"]["state"] == "ok"
    assert rows["job store"]["found"].startswith("2 queued, ")
    store.connection.close()
    (made / "jobs.db").write_bytes(b"no database" * 1000)
    done = salver("doctor", "--json")
    assert done.code == 1
    assert {row["check"]: row["state"] for row in done.json}["job store"] == "error"
