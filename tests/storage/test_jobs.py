"""The job store: each job goes through its states once, whoever dies meanwhile."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.storage.job_stores import Bench, make_new

from salver.protocol.errors import SalverError
from salver.protocol.jobs import FINAL, TRANSITIONS, Delivery, JobState
from salver.storage.job_steps import DeliveryTry, Outcome, Wanted
from salver.storage.job_view import _AWAITED, backlogs, delivery_counts, due_deliveries
from salver.testing import ManualClock

LOST = SalverError("WORKER_LOST", "the worker died")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def open_store(tmp_path, clock):
    opened = []

    def start(owner="me", **options):
        opened.append(Bench(tmp_path / "jobs.db", clock, owner, **options))
        return opened[-1]

    yield start
    for bench in opened:
        bench.connection.close()


def done(job, body=b"answer"):
    return Outcome(job, JobState.DONE, {"content-type": "application/json"}, body)


def again(job, pause_s=0.0, *, counts=True):
    return Outcome(job, JobState.QUEUED, error=LOST, pause_s=pause_s, counts=counts)


def test_a_job_is_accepted_claimed_and_done(open_store):
    store = open_store()
    accepted = store.accept(version="1.0.0", body=b"question")
    assert store.find(accepted.id).state is JobState.QUEUED
    (job,) = store.claim()
    assert (job.id, job.attempt, job.tenant, job.endpoint, job.version) == (accepted.id, 1, "acme", "digits", "1.0.0")
    assert (job.headers, job.body) == ({"content-type": "application/json"}, b"question")
    assert store.find(job.id).state is JobState.RUNNING
    assert store.settle(done(job)) == [JobState.DONE]
    assert store.find(job.id).state is JobState.DONE
    assert store.result(job.id) == ({"content-type": "application/json"}, b"answer")


def test_an_ended_job_keeps_no_body(open_store):
    store = open_store()
    store.accept()
    store.accept()
    first, second = store.claim()
    store.settle(done(first), Outcome(second, JobState.FAILED, error=LOST))
    assert (store.count("bodies"), store.count("results")) == (0, 1)


def test_a_job_is_claimed_once(open_store):
    one, other = open_store("one"), open_store("other")
    one.accept()
    assert len(one.claim()) == 1
    assert one.claim() == other.claim() == []


def test_a_claim_takes_the_oldest_first_and_no_more_than_asked_for(open_store):
    store = open_store()
    accepted = [store.accept().id for _ in range(5)]
    assert [job.id for job in store.claim(3)] == accepted[:3]
    assert [job.id for job in store.claim(3)] == accepted[3:]


def test_a_claim_keeps_to_the_bytes_but_for_one_job(open_store):
    store = open_store()
    for size in (10, 10, 10, 1000):
        store.accept(body=b"x" * size)
    assert [len(job.body) for job in store.claim(bytes=25)] == [10, 10]
    assert [len(job.body) for job in store.claim(bytes=5)] == [10]
    assert [len(job.body) for job in store.claim(bytes=5)] == [1000]


def test_tenants_are_claimed_in_turn(open_store):
    store = open_store()
    for _ in range(20):
        store.accept(tenant="loud")
    store.accept(tenant="quiet")
    assert "quiet" in {job.tenant for job in store.claim(2)}


def test_a_claim_of_one_job_at_a_time_serves_every_tenant(open_store):
    store = open_store()
    for _ in range(10):
        for tenant in ("a", "b", "c"):
            store.accept(tenant=tenant)
    assert {store.claim(1)[0].tenant for _ in range(3)} == {"a", "b", "c"}


@pytest.mark.parametrize("tenants", [1, 2, 3])
@pytest.mark.parametrize("endpoints", [1, 2, 3])
def test_every_endpoint_and_tenant_has_its_turn_where_there_is_room_for_one(open_store, endpoints, tenants):
    store = open_store()
    every = {(f"e{endpoint}", f"t{tenant}") for endpoint in range(endpoints) for tenant in range(tenants)}
    for endpoint, tenant in sorted(every):
        for _ in range(10):
            store.accept(endpoint=endpoint, tenant=tenant, body=b"x" * 10)
    slots = {f"e{endpoint}": 5 for endpoint in range(endpoints)}
    claimed = [store.step("claim", Wanted(slots, 10))[0] for _ in range(endpoints * tenants)]
    assert [len(jobs) for jobs in claimed] == [1] * len(every)
    assert {(jobs[0].endpoint, jobs[0].tenant) for jobs in claimed} == every


def test_only_endpoints_asked_for_are_claimed(open_store):
    store = open_store()
    store.accept(endpoint="other")
    assert store.claim() == []


def test_what_is_tried_again_waits_and_keeps_its_reason(open_store, clock):
    store = open_store()
    store.accept()
    (job,) = store.claim()
    assert store.settle(again(job, 5.0)) == [JobState.QUEUED]
    found = store.find(job.id)
    assert (found.attempts, found.code, found.message) == (1, "WORKER_LOST", "the worker died")
    assert store.claim() == []
    clock.advance(5.0)
    (retried,) = store.claim()
    assert retried.attempt == 2
    store.settle(done(retried))
    assert store.find(job.id).code is None


def test_the_last_attempt_is_the_last(open_store):
    store = open_store(attempts=2)
    store.accept()
    (job,) = store.claim()
    store.settle(again(job))
    (job,) = store.claim()
    assert store.settle(again(job)) == [JobState.FAILED]
    assert store.find(job.id).code == "WORKER_LOST"


def test_what_was_no_attempt_is_not_counted(open_store):
    store = open_store(attempts=1)
    store.accept()
    for _ in range(3):
        (job,) = store.claim()
        assert store.settle(again(job, counts=False)) == [JobState.QUEUED]
    assert store.find(job.id).attempts == 0


# Keys.


def test_the_same_key_and_request_give_the_same_job(open_store):
    store = open_store()
    first = store.accept(key="k", body=b"b")
    second = store.accept(key="k", body=b"b")
    assert (second.id, second.created) == (first.id, False)
    (job,) = store.claim()
    store.settle(done(job))
    assert store.accept(key="k", body=b"b").state is JobState.DONE
    assert store.claim() == []


@pytest.mark.parametrize(
    "other", [{"body": b"c"}, {"endpoint": "other"}, {"version": "1.0.0"}, {"headers": {}}, {"webhook": "w"}]
)
def test_the_same_key_with_another_request_is_refused(open_store, other):
    store = open_store()
    store.accept(key="k", body=b"b")
    assert store.accept(**{"key": "k", "body": b"b"} | other).code == "CONFLICT"


def test_keys_of_one_commit_are_compared_too(open_store):
    store = open_store()
    first, second, third = store.step(
        "accept", make_new(key="k", body=b"b"), make_new(key="k", body=b"b"), make_new(key="k", body=b"c")
    )
    assert first.created
    assert (second.id, second.created) == (first.id, False)
    assert third.code == "CONFLICT"


def test_keys_of_tenants_are_their_own(open_store):
    store = open_store()
    assert store.accept(key="k", tenant="a").created
    assert store.accept(key="k", tenant="b").created


def test_a_key_is_free_again_when_its_job_has_expired(open_store, clock):
    store = open_store(ttl_s=10.0)
    first = store.accept(key="k", body=b"b")
    store.settle(done(*store.claim()))
    clock.advance(10.0)
    store.tend()
    assert store.accept(key="k", body=b"c").id != first.id


# Limits.


def test_one_job_too_many_is_refused_and_others_are_taken(open_store):
    store = open_store(waiting=2)
    answers = store.step("accept", make_new(), make_new(), make_new(), make_new(endpoint="other"))
    assert [getattr(answer, "code", "taken") for answer in answers] == ["taken", "taken", "QUEUE_FULL", "taken"]
    store.claim(1)
    assert store.accept().created


def test_a_full_store_accepts_nothing_and_still_ends_what_it_has(open_store):
    store = open_store(store_bytes=2 * 2**20)
    big = b"x" * 2**20
    assert store.accept(body=big).created
    assert store.accept(body=big).code == "QUEUE_FULL"
    (job,) = store.claim()
    assert store.settle(done(job, big)) == [JobState.DONE]


# Fencing and takeover.


def test_the_jobs_of_the_dead_are_taken_over_at_once(open_store):
    dead, heir = open_store("dead"), open_store("heir", alive=())
    accepted = dead.accept()
    dead.claim()
    tended = heir.tend()
    assert tended.taken_over == {"digits": 1}
    (job,) = heir.claim()
    assert (job.id, job.attempt) == (accepted.id, 2)


def test_the_jobs_of_the_living_are_left_alone_until_their_lease_is_over(open_store, clock):
    slow, heir = open_store("slow"), open_store("heir", alive=("slow",), lease_s=30.0)
    slow.accept()
    slow.claim()
    clock.advance(29.0)
    assert heir.tend().taken_over.total() == 0
    clock.advance(2.0)
    assert heir.tend().taken_over.total() == 1


def test_a_renewed_lease_holds_and_tells_what_was_lost(open_store, clock):
    slow, heir = open_store("slow", lease_s=30.0), open_store("heir", alive=("slow",), lease_s=30.0)
    slow.accept()
    slow.accept()
    kept, cancelled = slow.claim()
    heir.cancel(cancelled.id)
    clock.advance(20.0)
    assert slow.tend(kept.seq, cancelled.seq).lost == {cancelled.seq}
    clock.advance(20.0)
    assert heir.tend().taken_over.total() == 0


def test_a_lease_that_its_own_process_has_forgotten_ends_too(open_store, clock):
    store = open_store(alive=("me",), lease_s=30.0)
    store.accept()
    store.accept()
    kept, forgotten = store.claim()
    clock.advance(20.0)
    store.tend(kept.seq)
    clock.advance(20.0)
    assert store.tend(kept.seq).taken_over.total() == 1
    assert [job.id for job in store.claim()] == [forgotten.id]


def test_a_process_that_stood_still_does_not_take_its_own_jobs_away(open_store, clock):
    store = open_store(alive=("me",), lease_s=30.0)
    store.accept()
    (job,) = store.claim()
    clock.advance(40.0)
    tended = store.tend(job.seq)
    assert (tended.taken_over.total(), tended.lost) == (0, set())
    assert store.settle(done(job)) == [JobState.DONE]


def test_of_two_that_run_a_job_one_brings_its_result(open_store):
    frozen, heir = open_store("frozen"), open_store("heir")
    frozen.accept()
    (old,) = frozen.claim()
    heir.tend()
    (new,) = heir.claim()
    assert frozen.settle(done(old, b"late")) == [None]
    assert heir.settle(done(new, b"right")) == [JobState.DONE]
    assert frozen.settle(done(old, b"late")) == [None]
    assert heir.result(new.id).body == b"right"
    assert heir.count("results") == 1


def test_an_earlier_attempt_of_the_same_process_brings_nothing(open_store, clock):
    store = open_store(lease_s=30.0)
    store.accept()
    (old,) = store.claim()
    clock.advance(31.0)
    store.tend()
    (new,) = store.claim()
    assert store.settle(done(old, b"late"), again(old)) == [None, None]
    assert store.claim() == []
    assert store.settle(done(new)) == [JobState.DONE]


def test_a_job_that_takes_its_process_along_each_time_fails_in_the_end(open_store):
    heir = open_store("heir")
    accepted = heir.accept()
    for number in range(5):
        dead = open_store(f"dead{number}")
        assert len(dead.claim()) == 1
        tended = heir.tend()
    assert tended.failed == {"digits": 1}
    found = heir.find(accepted.id)
    assert (found.state, found.code, found.attempts) == (JobState.FAILED, "WORKER_LOST", 5)
    assert heir.count("bodies") == 0


# Cancelling and time.


def test_a_cancelled_job_is_not_run(open_store):
    store = open_store()
    accepted = store.accept()
    assert store.cancel(accepted.id).state is JobState.CANCELLED
    assert store.claim() == []
    assert store.count("bodies") == 0


def test_a_job_cancelled_while_it_runs_has_no_result(open_store):
    store = open_store()
    accepted = store.accept()
    (job,) = store.claim()
    store.cancel(accepted.id)
    assert store.settle(done(job)) == [None]
    assert store.result(accepted.id) is None


def test_of_two_that_cancel_a_job_one_has_done_it(open_store):
    store = open_store()
    accepted = store.accept()
    both = store.step("cancel", accepted.id, accepted.id)
    assert [(each.changed, each.job.state) for each in both] == [
        (True, JobState.CANCELLED),
        (False, JobState.CANCELLED),
    ]
    assert store.step("cancel", b"x" * 16) == [(False, None)]


def test_what_has_ended_cannot_be_cancelled(open_store):
    store = open_store()
    store.accept()
    (job,) = store.claim()
    store.settle(done(job))
    assert store.cancel(job.id).state is JobState.DONE
    assert store.cancel(b"x" * 16) is None


def test_a_job_that_waits_too_long_is_given_up(open_store, clock):
    store = open_store(wait_s=60.0)
    accepted = store.accept()
    clock.advance(59.0)
    assert store.tend().expired.total() == 0
    clock.advance(1.0)
    assert store.tend().expired == {"digits": 1}
    found = store.find(accepted.id)
    assert (found.state, found.code) == (JobState.EXPIRED, "JOB_EXPIRED")
    assert store.claim() == []


def test_a_job_that_runs_is_not_given_up(open_store, clock):
    store = open_store(alive=("me",), wait_s=60.0, lease_s=1e6)
    store.accept()
    (job,) = store.claim()
    clock.advance(100.0)
    store.tend()
    assert store.settle(done(job)) == [JobState.DONE]


def test_results_expire_then_the_job_is_forgotten_and_the_space_comes_back(open_store, clock):
    store = open_store(ttl_s=60.0)
    for _ in range(20):
        store.accept()
    store.settle(*[done(job, b"x" * 2**18) for job in store.claim()])
    full_bytes = store.store.used_bytes()
    clock.advance(60.0)
    store.tend()
    (found,) = store.list(limit=1).jobs
    assert (found.state, store.count("results")) == (JobState.EXPIRED, 0)
    clock.advance(60.0)
    store.tend()
    assert store.count("jobs") == 0
    for _ in range(10):
        store.tend()
    assert store.store.used_bytes() < full_bytes / 10
    assert store.connection.execute("PRAGMA page_count").fetchone()[0] * 4096 < full_bytes


def test_a_wall_clock_that_jumps_moves_no_lease_and_no_pause(open_store, clock):
    store, other = open_store(lease_s=30.0), open_store("other", alive=("me",), lease_s=30.0)
    store.accept()
    store.accept()
    running, retried = store.claim()
    store.settle(again(retried, 10.0))
    for jump_s in (3600.0, -7200.0):
        clock._wall_s += jump_s
        assert other.tend().taken_over.total() == 0
        assert other.claim() == []
    clock.advance(10.0)
    assert [job.id for job in other.claim()] == [retried.id]
    assert store.settle(done(running)) == [JobState.DONE]


def test_after_a_boot_everything_is_due_and_nobody_is_alive(open_store, tmp_path, clock, monkeypatch):
    before = open_store("before")
    first = before.accept()
    second = before.accept()
    (running,) = before.claim(1)
    before.settle(again(running, 1e6))
    monkeypatch.setattr("salver.storage.job_file.boot_id", lambda: "another")
    after = Bench(tmp_path / "jobs.db", ManualClock(monotonic_s=1.0), "after", alive=("before",))
    assert [job.id for job in after.claim()] == [first.id, second.id]
    after.connection.close()


def test_a_job_that_ran_when_the_machine_went_down_runs_again(open_store, tmp_path, monkeypatch):
    before = open_store("before")
    accepted = before.accept()
    before.claim()
    monkeypatch.setattr("salver.storage.job_file.boot_id", lambda: "another")
    after = Bench(tmp_path / "jobs.db", ManualClock(monotonic_s=1.0), "after", alive=("before",))
    after.tend()
    assert [job.id for job in after.claim()] == [accepted.id]
    after.connection.close()


# Deliveries.


def due(store, clock):
    return [job.id for job in due_deliveries(store.connection, [(clock.monotonic_s(), 10)])[0]]


def test_a_webhook_is_due_when_its_job_has_ended_and_not_before(open_store, clock):
    store = open_store()
    accepted = store.accept(webhook="w")
    store.accept()
    first, second = store.claim()
    assert due(store, clock) == []
    store.settle(done(first), done(second))
    assert due(store, clock) == [accepted.id]


@pytest.mark.parametrize("end", ["failed", "cancelled", "expired"])
def test_every_end_is_told(open_store, clock, end):
    store = open_store()
    accepted = store.accept(webhook="w")
    if end == "failed":
        store.settle(Outcome(store.claim()[0], JobState.FAILED, error=LOST))
    elif end == "cancelled":
        store.cancel(accepted.id)
    else:
        clock.advance(86_400.0)
        store.tend()
    assert due(store, clock) == [accepted.id]


def test_tries_are_counted_and_the_next_waits(open_store, clock):
    store = open_store()
    accepted = store.accept(webhook="w")
    store.settle(done(*store.claim()))
    failed = DeliveryTry(accepted.id, "w", Delivery.PENDING, "it answered 500", 5.0)
    assert store.step("record_deliveries", failed) == [True]
    assert due(store, clock) == []
    clock.advance(5.0)
    assert due(store, clock) == [accepted.id]
    store.step("record_deliveries", DeliveryTry(accepted.id, "w", Delivery.DELIVERED, "it answered 204"))
    found = store.find(accepted.id)
    assert (found.delivery, found.deliveries, found.delivery_note) == (Delivery.DELIVERED, 2, "it answered 204")
    assert store.step("record_deliveries", DeliveryTry(accepted.id, "w", Delivery.FAILED, "late")) == [False]
    (counts,) = delivery_counts(store.connection, [None])
    assert counts == {("w", "retried"): 1, ("w", "delivered"): 1, ("w", "failed"): 1}


def test_each_webhook_has_its_own_line_whatever_waits_in_anothers(open_store, clock):
    store = open_store()
    for name in ("dead", "dead", "dead", "good", "zoo"):
        store.accept(webhook=name)
        clock.advance(1.0)
        store.settle(done(*store.claim()))
    (jobs,) = due_deliveries(store.connection, [(clock.monotonic_s(), 2)])
    assert [job.webhook for job in jobs] == ["dead", "dead", "good", "zoo"]
    assert jobs[0].ended_s < jobs[1].ended_s
    plan = " ".join(row[3] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {_AWAITED}"))
    assert plan.count("jobs_delivering") == 2
    assert "SCAN jobs " not in plan.replace("SCAN jobs USING", "")


def test_an_expired_job_is_told_no_more(open_store, clock):
    store = open_store(ttl_s=60.0)
    accepted = store.accept(webhook="w")
    store.settle(done(*store.claim()))
    clock.advance(60.0)
    store.tend()
    assert due(store, clock) == []
    assert store.find(accepted.id).delivery is Delivery.FAILED


# Lists.


def test_lists_are_newest_first_and_go_on_where_they_ended(open_store):
    store = open_store()
    accepted = [store.accept().id for _ in range(5)][::-1]
    first = store.list(limit=2)
    assert [job.id for job in first.jobs] == accepted[:2]
    second = store.list(limit=2, after=first.next)
    third = store.list(limit=2, after=second.next)
    assert [job.id for job in (*second.jobs, *third.jobs)] == accepted[2:]
    assert third.next is None


def test_lists_are_of_one_tenant_endpoint_and_state(open_store):
    store = open_store()
    mine = store.accept(tenant="me", endpoint="a").id
    store.accept(tenant="me", endpoint="b")
    store.accept(tenant="you", endpoint="a")
    assert [job.id for job in store.list("me", endpoint="a").jobs] == [mine]
    assert len(store.list("me").jobs) == 2
    assert len(store.list(None).jobs) == 3
    store.cancel(mine)
    assert [job.id for job in store.list(None, state=JobState.CANCELLED).jobs] == [mine]
    assert store.list("nobody") == ((), None)
    assert store.list(None, after=b"x" * 16) == ((), None)


def test_a_list_that_finds_little_ends_and_says_where_to_go_on(open_store, monkeypatch):
    monkeypatch.setattr("salver.storage.job_view._SCANNED", 3)
    store = open_store()
    old = store.accept(endpoint="rare").id
    others = [store.accept().id for _ in range(5)]
    page = store.list(endpoint="rare")
    assert (page.jobs, page.next) == ((), others[2])
    page = store.list(endpoint="rare", after=page.next)
    assert [job.id for job in page.jobs] == [old]


def test_a_backlog_is_counted_by_endpoint(open_store, clock):
    store = open_store()
    store.accept(tenant="a")
    clock.advance(10.0)
    store.accept(tenant="b")
    store.accept(endpoint="other")
    store.claim(1, endpoint="other")
    (rows,) = backlogs(store.connection, [None])
    assert rows == [("digits", 2, 0, clock.wall_s() - 10.0), ("other", 0, 1, None)]


class Processes(RuleBasedStateMachine):
    """Two processes that share a store, die, and come back: no job is lost, and none has two outcomes."""

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.born = 0
        self.path = Path(self.folder.name) / "jobs.db"
        self.benches = [self.start(), self.start()]
        self.held = {}
        self.states = {}
        self.ended = {}

    def start(self):
        self.born += 1
        return Bench(self.path, self.clock, f"p{self.born}", attempts=3, lease_s=30.0, ttl_s=1e9, wait_s=1e9)

    def living(self):
        for bench in self.benches:
            bench.alive = {each.store._owner for each in self.benches}

    @rule(tenant=st.sampled_from("ab"))
    def accept(self, tenant):
        self.states[self.benches[0].accept(tenant=tenant).id] = JobState.QUEUED

    @rule(who=st.integers(0, 1), slots=st.integers(1, 4))
    def claim(self, who, slots):
        for job in self.benches[who].claim(slots):
            self.held.setdefault((job.id, who), []).append(job)

    @rule(data=st.data(), how=st.sampled_from(["done", "failed", "again", "release"]))
    def settle(self, data, how):
        if not self.held:
            return
        key = data.draw(st.sampled_from(sorted(self.held)))
        job = self.held[key].pop()
        if not self.held[key]:
            del self.held[key]
        outcome = {
            "done": done(job),
            "failed": Outcome(job, JobState.FAILED, error=LOST),
            "again": again(job),
            "release": again(job, counts=False),
        }[how]
        (state,) = self.benches[key[1]].settle(outcome)
        if state in FINAL:
            assert job.id not in self.ended, "a second outcome"
            self.ended[job.id] = state

    @rule(who=st.integers(0, 1))
    def die(self, who):
        self.benches[who].connection.close()
        self.benches[who] = self.start()
        self.held = {key: jobs for key, jobs in self.held.items() if key[1] != who}

    @rule(who=st.integers(0, 1), seconds=st.sampled_from([0.0, 1.0, 40.0]))
    def tend(self, who, seconds):
        self.clock.advance(seconds)
        self.living()
        self.benches[who].tend()

    @rule(data=st.data())
    def cancel(self, data):
        if self.states:
            found = self.benches[0].cancel(data.draw(st.sampled_from(sorted(self.states))))
            if found.state is JobState.CANCELLED:
                self.ended.setdefault(found.id, JobState.CANCELLED)

    @invariant()
    def every_job_is_there_once_and_moved_as_it_may(self):
        bench = self.benches[0]
        for name, before in self.states.items():
            now = bench.find(name).state
            reachable = {before} | TRANSITIONS[before] | {a for b in TRANSITIONS[before] for a in TRANSITIONS[b]}
            assert now in reachable
            assert self.ended.get(name) in (None, now)
            self.states[name] = now
        counted = bench.connection.execute("SELECT state, SUM(count) FROM tallies GROUP BY state").fetchall()
        for state, count in counted:
            assert count == sum(1 for each in self.states.values() if each == state)
        assert bench.count("results") == sum(1 for each in self.states.values() if each is JobState.DONE)

    def teardown(self):
        for bench in self.benches:
            bench.connection.close()
        self.folder.cleanup()


Processes.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestProcesses = Processes.TestCase


def test_a_claim_of_nothing_is_nothing(open_store):
    assert open_store().step("claim", Wanted({}, 10)) == [[]]
