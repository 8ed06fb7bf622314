"""Jobs over HTTP: submitted, asked after, cancelled, listed; whose they are; what is refused."""

import contextlib
import json
import os
import threading

import pytest
from tests.gateway.test_infer import HOSTILE_JSON, LIES
from tests.gateway.wire import eventually, request

from salver.gateway.limits import Limits
from salver.protocol.jobs import JobLimits
from salver.protocol.tables import TokenRecord, Webhook
from salver.security.access import Role
from salver.security.tokens import mint_token
from salver.storage.job_file import open_jobs
from salver.testing import ManualClock

INPUT = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
BODY = json.dumps({"id": "mine", "inputs": [INPUT]}).encode()
MINTED = {
    name: mint_token(name, role, tenant, pepper=b"p" * 32, clock=ManualClock())
    for name, role, tenant in (
        ("ann", Role.PREDICTOR, "acme"),
        ("bob", Role.PREDICTOR, "acme"),
        ("eve", Role.PREDICTOR, "evil"),
        ("ops", Role.OPERATOR, "house"),
    )
}
TOKENS: tuple[TokenRecord, ...] = tuple(minted.record for minted in MINTED.values())


class Jobs:
    """A served gateway, and jobs on it."""

    def __init__(self, served):
        self.served = served

    def submit(self, model="toy", body=BODY, *headers, query="", who=None):
        return self.served.post(f"/v2/models/{model}/jobs{query}", body, *headers, *bearer(who))

    def accepted(self, *args, **options):
        reply = self.submit(*args, **options)
        assert reply.status == 202, reply.body
        assert reply.headers["location"] == reply.json["url"] == f"/v2/jobs/{reply.json['id']}"
        return reply.json["id"]

    def show(self, job, *headers, who=None):
        return self.served.get(f"/v2/jobs/{job}", *headers, *bearer(who))

    def ended(self, job, who=None):
        reply = self.show(job, "prefer: wait=30", who=who)
        assert reply.status == 200, reply.body
        return reply.json

    def result(self, job, *headers, who=None):
        return self.served.get(f"/v2/jobs/{job}/result", *headers, *bearer(who))

    def cancel(self, job, who=None):
        return self.served.ask(request("DELETE", f"/v2/jobs/{job}", headers=bearer(who)))

    def list(self, query="", who=None):
        return self.served.get(f"/v2/jobs{query}", *bearer(who))

    def hold(self):
        """Submit a job that runs until the test says so."""
        job = self.accepted("held")
        eventually(lambda: self.served.held.asked)
        return job


def bearer(who):
    return (f"authorization: Bearer {MINTED[who].token}",) if who else ()


def start(served):
    served.thread.run(lambda: served.plane.jobs.start(served.plane.gateway))
    return Jobs(served)


@pytest.fixture(scope="module")
def jobs(serve_model):
    return start(serve_model(Limits(body_bytes=2**20), jobs=JobLimits(body_bytes=20_000, in_flight=4)))


@pytest.fixture(scope="module")
def guarded(serve_model):
    webhooks = (Webhook("everybodys"), Webhook("acmes", "acme"))
    return start(serve_model(Limits(), tokens=TOKENS, webhooks=webhooks))


def test_a_job_gives_what_the_request_would_have(jobs):
    job = jobs.accepted()
    shown = jobs.ended(job)
    assert (shown["state"], shown["attempts"], shown["endpoint"]) == ("done", 1, "toy")
    assert shown["result_url"] == f"/v2/jobs/{job}/result"
    direct = jobs.served.infer(BODY)
    result = jobs.result(job)
    assert (result.status, result.json) == (200, direct.json)
    assert result.json["id"] == "mine"


def test_a_binary_request_has_a_binary_result(jobs):
    raw = b"\0\0\x80\x3f" * 4
    head = json.dumps(
        {
            "inputs": [{**INPUT, "parameters": {"binary_data_size": 16}} | {"data": None}],
            "parameters": {"binary_data_output": True},
        }
    ).replace('"data": null, ', "")
    headers = ("content-type: application/octet-stream", f"inference-header-content-length: {len(head)}")
    body = head.encode() + raw
    direct = jobs.served.infer(body, *headers)
    assert direct.status == 200, direct.body
    job = jobs.accepted("toy", body, *headers)
    jobs.ended(job)
    result = jobs.result(job)
    assert result.body == direct.body
    for name in ("content-type", "inference-header-content-length"):
        assert result.headers[name] == direct.headers[name]


def test_a_version_may_be_named(jobs):
    reply = jobs.served.post("/v2/models/toy/versions/1.0.0/jobs", BODY)
    assert jobs.ended(reply.json["id"])["version"] == "1.0.0"
    assert jobs.served.post("/v2/models/toy/versions/9.0.0/jobs", BODY).status == 404


def test_bad_input_is_refused_at_once(jobs):
    wrong = json.dumps({"inputs": [INPUT | {"shape": [1, 5], "data": [1] * 5}]}).encode()
    for body, code in ((b"{", "INVALID_JSON"), (wrong, "WRONG_SHAPE"), (b"x" * 30_000, "BODY_TOO_LARGE")):
        assert jobs.submit("toy", body).headers["x-salver-error"] == code
    assert jobs.submit("nowhere").status == 404


@pytest.fixture(scope="module")
def roomy(serve_model):
    return start(serve_model(Limits()))


@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_hostile_json_is_refused_and_becomes_no_job(roomy, kind):
    body, code = HOSTILE_JSON[kind]
    refused = roomy.submit("toy", body)
    assert (refused.status, "error" in refused.json) == (400, True)
    assert len(refused.error) < 500
    assert refused.code == code or code is None
    assert roomy.list().json["jobs"] == []
    assert roomy.served.infer(BODY).status == 200


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_becomes_no_job_or_one_that_fails_naming_the_lie(roomy, lie):
    body, code, named = LIES[lie]
    refused = roomy.submit("toy", json.dumps(body).encode())
    if refused.status == 202:
        error = roomy.ended(refused.json["id"])["error"]
        assert (error["code"], named in error["message"]) == (code, True)
    else:
        assert (refused.code, named in refused.error) == (code, True)
        assert "connection" not in refused.headers
    assert roomy.served.infer(BODY).status == 200


def test_a_job_of_a_model_that_is_away_waits_for_it(jobs):
    job = jobs.accepted("broken")
    assert jobs.show(job).json["state"] == "queued"
    assert jobs.cancel(job).json["state"] == "cancelled"


def test_a_result_is_refused_by_state(jobs):
    job = jobs.hold()
    assert jobs.show(job).json["state"] == "running"
    refused = jobs.result(job)
    assert (refused.status, refused.headers["x-salver-error"]) == (409, "JOB_NOT_DONE")
    assert jobs.cancel(job).json["state"] == "cancelled"
    refused = jobs.result(job)
    assert (refused.status, refused.headers["x-salver-error"]) == (410, "JOB_CANCELLED")
    jobs.served.answer_held()


def test_a_failed_job_says_why(jobs):
    many = json.dumps({"inputs": [INPUT | {"shape": [300, 4], "data": [1] * 1200}]}).encode()
    job = jobs.accepted("toy", many)
    shown = jobs.ended(job)
    assert (shown["state"], shown["error"]["code"], shown["attempts"]) == ("failed", "TOO_MANY_ROWS", 1)
    refused = jobs.result(job)
    assert (refused.status, refused.headers["x-salver-error"]) == (409, "JOB_FAILED")
    assert "TOO_MANY_ROWS" in refused.json["error"]


def test_cancelling_ends_what_runs(jobs):
    job = jobs.hold()
    _, answer = jobs.served.held.asked[-1]
    jobs.cancel(job)
    assert answer.cancelled()
    jobs.served.held.asked.clear()


def metric(jobs, name, endpoint):
    text = jobs.served.get("/metrics").body.decode()
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
    return float(counted.get(f'{name}_total{{endpoint="{endpoint}"}}', 0))


@contextlib.contextmanager
def stopped_disk(jobs):
    """Whoever holds the lock of the file is as slow as a disk that stands still."""
    with contextlib.closing(open_jobs(jobs.served.plane.jobs._ledger._path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def leave(jobs, sent, asked):
    """Send a request, and go when the store has been `asked` and has not answered."""
    client = jobs.served.connect()
    client.send(sent)
    eventually(asked)
    client.close()
    eventually(jobs.served.is_quiet)


def test_a_job_whose_client_leaves_before_it_is_on_disk_is_counted_and_run(jobs):
    jobs.ended(jobs.accepted())
    writes = jobs.served.plane.jobs._ledger._writes
    accepted, done = (metric(jobs, f"salver_jobs_{name}", "toy") for name in ("accepted", "done"))
    key = f"left-{os.urandom(4).hex()}"
    sent = request("POST", "/v2/models/toy/jobs", BODY, (f"idempotency-key: {key}",))
    asks, ask = [], writes.ask
    writes.ask = lambda step, value: asks.append(step.__name__) or ask(step, value)
    try:
        with stopped_disk(jobs):
            leave(jobs, sent, lambda: "accept" in asks)
    finally:
        del writes.ask
    eventually(lambda: metric(jobs, "salver_jobs_done", "toy") == done + 1)
    assert metric(jobs, "salver_jobs_accepted", "toy") == accepted + 1
    assert jobs.submit("toy", BODY, f"idempotency-key: {key}").json["state"] == "done"


def test_a_job_cancelled_by_a_client_that_leaves_ends_and_is_counted_once(jobs):
    job = jobs.hold()
    writes = jobs.served.plane.jobs._ledger._writes
    before = metric(jobs, "salver_jobs_cancelled", "held")
    _, answer = jobs.served.held.asked[-1]
    asks, ask = [], writes.ask
    writes.ask = lambda step, value: asks.append(step.__name__) or ask(step, value)
    try:
        with stopped_disk(jobs):
            for count in (1, 2):
                leave(jobs, request("DELETE", f"/v2/jobs/{job}"), lambda count=count: asks.count("cancel") == count)
    finally:
        del writes.ask
    eventually(answer.cancelled)
    assert jobs.show(job).json["state"] == "cancelled"
    assert metric(jobs, "salver_jobs_cancelled", "held") == before + 1
    jobs.served.held.asked.clear()


def test_what_has_ended_stays_what_it_is(jobs):
    job = jobs.accepted()
    jobs.ended(job)
    assert jobs.cancel(job).json["state"] == "done"
    assert jobs.result(job).status == 200


def test_who_prefers_to_wait_is_answered_when_the_job_ends(jobs):
    job = jobs.hold()
    replies = []
    waiter = threading.Thread(target=lambda: replies.append(jobs.show(job, "Prefer: respond-async, wait=20")))
    waiter.start()
    eventually(lambda: jobs.served.plane._jobs_door._waits._count)
    assert replies == []
    jobs.served.answer_held()
    waiter.join(10)
    assert replies[0].json["state"] == "done"


def test_who_waits_no_longer_hears_how_it_stands(jobs):
    job = jobs.hold()
    assert jobs.show(job, "prefer: wait=0").json["state"] == "running"
    assert jobs.show(job, "prefer: wait=1").json["state"] == "running"
    for odd in ("wait=-1", "wait=x", "wait=99999999999", "await=3"):
        assert jobs.show(job, f"prefer: {odd}").json["state"] == "running"
    jobs.served.answer_held()
    assert jobs.ended(job)["state"] == "done"


def test_no_more_run_than_may_and_the_rest_waits_in_the_store(jobs):
    accepted = [jobs.accepted("held") for _ in range(7)]
    eventually(lambda: len(jobs.served.held.asked) == 4)
    states = [jobs.show(job).json["state"] for job in accepted]
    assert states == ["running"] * 4 + ["queued"] * 3
    jobs.served.answer_held(7)
    assert [jobs.ended(job)["state"] for job in accepted] == ["done"] * 7


def test_jobs_are_the_least_urgent_requests_and_have_their_own_deadline(jobs):
    job = jobs.hold()
    asked, _ = jobs.served.held.asked[0]
    assert asked.priority > 2**30
    assert 299 < asked.deadline_s - asked.received_s <= 300
    assert asked.trace == job.encode()
    jobs.served.answer_held()
    body = json.dumps({"inputs": [INPUT], "parameters": {"timeout": 2_000_000}}).encode()
    jobs.accepted("held", body)
    eventually(lambda: jobs.served.held.asked)
    asked, _ = jobs.served.held.asked[0]
    assert asked.deadline_s - asked.received_s == 2.0
    jobs.served.answer_held()


def test_an_idempotency_key_gives_the_same_job(jobs):
    key = f"idempotency-key: {os.urandom(4).hex()}"
    first = jobs.accepted("toy", BODY, key)
    jobs.ended(first)
    again = jobs.submit("toy", BODY, key)
    assert (again.status, again.json["id"], again.json["state"]) == (202, first, "done")
    other = jobs.submit("toy", BODY.replace(b"4]}", b"5]}"), key)
    assert (other.status, other.headers["x-salver-error"]) == (409, "CONFLICT")


@pytest.mark.parametrize("key", ["", "x" * 300, "a\tb", "caf\xe9"])
def test_a_key_that_is_none_is_refused(jobs, key):
    assert jobs.submit("toy", BODY, f"idempotency-key: {key}").headers["x-salver-error"] == "INVALID_PARAMETER"


def test_a_list_is_bounded_and_goes_on(jobs):
    for _ in range(3):
        jobs.accepted()
    page = jobs.list("?endpoint=toy&limit=2").json
    assert len(page["jobs"]) == 2
    rest = jobs.list(f"?endpoint=toy&limit=1000&after={page['next']}").json
    assert {job["id"] for job in page["jobs"]}.isdisjoint(job["id"] for job in rest["jobs"])
    assert {job["state"] for job in jobs.list("?state=cancelled").json["jobs"]} <= {"cancelled"}


@pytest.mark.parametrize(
    "query",
    [
        *("?limit=0", "?limit=1001", "?limit=-1", "?limit=x", "?limit=%d9%a3", "?state=lost"),
        *("?limit=1&limit=2", "?tenant=acme", "?", "?&", "?endpoint=%ff", "?" + "endpoint=x&" * 50),
    ],
)
def test_an_odd_query_is_refused_or_means_nothing(jobs, query):
    reply = jobs.list(query)
    assert reply.headers.get("x-salver-error") == "INVALID_PARAMETER" or query in ("?", "?&")


@pytest.mark.parametrize("job", ["0" * 32, "x" * 32, "1", "A" * 32, "%2e%2e", "0" * 5000])
def test_unknown_jobs_are_not_found(jobs, job):
    for reply in (jobs.show(job), jobs.result(job), jobs.cancel(job)):
        assert reply.status == 404


def test_everything_about_a_job_is_its_tenants(guarded):
    job = guarded.accepted(who="ann")
    assert guarded.ended(job, who="bob")["tenant"] == "acme"
    unknown = guarded.show("0" * 32, who="eve")
    for ask in (guarded.show, guarded.result, guarded.cancel):
        refused = ask(job, who="eve")
        assert refused.status == 404
        assert refused.json["error"].replace(job, "0" * 32) == unknown.json["error"]
        assert ask(job).status == 401
    assert guarded.list(who="eve").json == {"jobs": [], "next": None}
    assert job in {each["id"] for each in guarded.list(who="bob").json["jobs"]}
    assert guarded.result(job, who="ann").status == 200


def test_a_tenant_cannot_list_on_from_behind_anothers_job_into_it(guarded):
    job = guarded.accepted(who="ann")
    assert guarded.list(f"?after={job}", who="eve").json["jobs"] == []


def test_operators_see_and_cancel_everybodys_jobs(guarded):
    guarded.ended(guarded.accepted(who="ann"), who="ann")
    job = guarded.accepted("broken", who="ann")
    assert job in {each["id"] for each in guarded.list(who="ops").json["jobs"]}
    assert guarded.show(job, who="ops").json["tenant"] == "acme"
    assert guarded.cancel(job, who="ops").json["state"] == "cancelled"


def test_a_key_is_its_tenants(guarded):
    ann = guarded.accepted("toy", BODY, "idempotency-key: k", who="ann")
    assert guarded.accepted("toy", BODY, "idempotency-key: k", who="bob") == ann
    assert guarded.accepted("toy", BODY, "idempotency-key: k", who="eve") != ann


def test_a_webhook_is_named_and_only_by_those_it_is_for(guarded):
    for who, query, status in (
        ("ann", "?webhook=everybodys", 202),
        ("ann", "?webhook=acmes", 202),
        ("eve", "?webhook=acmes", 400),
        ("ann", "?webhook=nowhere", 400),
        ("ann", "?webhook=http://169.254.169.254/", 400),
        ("ann", "?callback=http://169.254.169.254/", 400),
    ):
        assert guarded.submit(query=query, who=who).status == status
    job = guarded.accepted("toy", BODY, "salver-webhook: acmes", who="ann")
    assert guarded.ended(job, who="ann")["webhook"] == {"name": "acmes", "state": "pending", "attempts": 0}


def test_what_was_done_is_counted(jobs):
    text = jobs.served.get("/metrics").body.decode()
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("salver_jobs"))
    assert float(counted['salver_jobs_accepted_total{endpoint="toy"}']) >= 5
    assert float(counted['salver_jobs_done_total{endpoint="toy"}']) >= 4
    assert float(counted['salver_jobs_failed_total{code="TOO_MANY_ROWS",endpoint="toy"}']) == 1
    assert float(counted['salver_jobs_cancelled_total{endpoint="held"}']) >= 2
