"""Telling webhooks: signed, to a checked address, again until it was heard, and never a stampede."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl

import pytest
import trustme
from tests.control.receiving import Receiver
from tests.storage.job_stores import make_new

from salver.control.job_deliveries import JobDeliveries, message_of
from salver.control.webhook_sender import Sender, Tried
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits, JobState
from salver.registry.webhooks import WebhookRecord
from salver.security.signing import secret_text, webhook_secret
from salver.storage.job_ledger import JobLedger
from salver.storage.job_steps import Outcome, Wanted
from salver.testing import ManualClock, eventually

PEPPER = b"p" * 32


class Post:
    """A ledger, the loop that tells, and one receiver that `hooks.example.com` may resolve to."""

    def __init__(self, path, receiver, **limits):
        self.clock = ManualClock()
        self.receiver = receiver
        self.ledger = JobLedger(path, JobLimits(**limits), self.clock, "me")
        self.addresses = ["127.0.0.1"]
        self.resolved = []
        url = f"http://hooks.example.com:{receiver.port}/x?y=1"
        self.webhooks = {"orders": WebhookRecord("id", "orders", url, "", True, 0.0)}
        sender = Sender(PEPPER, JobLimits(**limits).delivery_s, self.clock, resolve=self.resolve)
        self.deliveries = JobDeliveries(self.ledger, lambda: self.webhooks, JobLimits(**limits), sender, self.clock)

    async def resolve(self, host, port):
        self.resolved.append(host)
        return self.addresses

    async def end_a_job(self, state=JobState.DONE, webhook="orders", **changes):
        accepted = await self.ledger.accept(make_new(webhook=webhook, **changes))
        (job,) = await self.ledger.claim(Wanted({"digits": 1}, 1000))
        error = None if state is JobState.DONE else SalverError("MODEL_ERROR", "it raised")
        await self.ledger.settle(Outcome(job, state, {}, b"secret result", error=error))
        return accepted.id

    async def tick(self):
        await self.deliveries.tick()
        await self.deliveries.settled()

    async def state(self, name):
        job = await self.ledger.find(name)
        return job.delivery.word, job.deliveries, job.delivery_note


@pytest.fixture
def posted(tmp_path):
    """Run a coroutine function with a `Post`."""

    def start(test, **limits):
        async def run():
            async with Receiver() as receiver:
                post = Post(tmp_path / "jobs.db", receiver, **limits)
                try:
                    await asyncio.wait_for(test(post), 30)
                finally:
                    await post.ledger.close()

        asyncio.run(run())

    return start


def test_a_message_is_signed_and_says_how_the_job_ended(posted):
    async def test(post):
        name = await post.end_a_job()
        await post.tick()
        ((first, headers, body),) = post.receiver.heard
        assert first == "POST /x?y=1 HTTP/1.1"
        assert headers["host"] == f"hooks.example.com:{post.receiver.port}"
        assert headers["webhook-id"] == f"msg_{name.hex()}"
        assert headers["webhook-timestamp"] == str(int(post.clock.wall_s()))
        key = base64.b64decode(secret_text(webhook_secret(PEPPER, "id")).removeprefix("whsec_"))
        signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        message = json.loads(body)
        assert (message["type"], message["data"]["id"], message["data"]["state"]) == ("job.done", name.hex(), "done")
        assert b"secret result" not in body
        assert await post.state(name) == ("delivered", 1, "it answered 204")
        await post.tick()
        assert len(post.receiver.heard) == 1

    posted(test)


def test_a_failure_is_told_with_its_error(posted):
    async def test(post):
        await post.end_a_job(JobState.FAILED)
        await post.tick()
        message = json.loads(post.receiver.heard[0][2])
        assert message["type"] == "job.failed"
        assert message["data"]["error"] == {"code": "MODEL_ERROR", "message": "it raised"}

    posted(test)


def test_a_receiver_that_fails_is_told_again_later_with_the_same_id(posted):
    async def test(post):
        name = await post.end_a_job()
        post.receiver.answer = b"HTTP/1.1 500 Oops\r\n\r\n"
        await post.tick()
        assert await post.state(name) == ("pending", 1, "it answered 500")
        await post.tick()
        assert len(post.receiver.heard) == 1
        post.clock.advance(5.0)
        post.receiver.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
        await post.tick()
        assert await post.state(name) == ("delivered", 2, "it answered 200")
        assert len({headers["webhook-id"] for _, headers, _ in post.receiver.heard}) == 1

    posted(test)


def test_a_receiver_that_never_succeeds_is_given_up(posted):
    async def test(post):
        name = await post.end_a_job()
        post.receiver.answer = b"HTTP/1.1 503 Later\r\n\r\n"
        for _ in range(5):
            await post.tick()
            post.clock.advance(3600.0)
        assert await post.state(name) == ("failed", 3, "it answered 503")
        assert len(post.receiver.heard) == 3

    posted(test, deliveries=3)


def test_a_receiver_that_is_gone_is_told_no_more(posted):
    async def test(post):
        name = await post.end_a_job()
        post.receiver.answer = b"HTTP/1.1 410 Gone\r\n\r\n"
        await post.tick()
        assert await post.state(name) == ("failed", 1, "it answered 410")

    posted(test)


def test_a_redirect_is_not_followed(posted):
    async def test(post):
        name = await post.end_a_job()
        target = f"http://127.0.0.1:{post.receiver.port}/internal"
        post.receiver.answer = f"HTTP/1.1 307 There\r\nlocation: {target}\r\n\r\n".encode()
        await post.tick()
        assert await post.state(name) == ("pending", 1, "it answered 307")
        assert len(post.receiver.heard) == 1

    posted(test)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"], ["::1"]])
def test_a_name_that_leads_inside_is_not_connected_to(posted, addresses):
    async def test(post):
        url = f"https://hooks.example.com:{post.receiver.port}/"
        post.webhooks = {"orders": WebhookRecord("id", "orders", url, "", False, 0.0)}
        post.addresses = addresses
        name = await post.end_a_job()
        await post.tick()
        assert await post.state(name) == ("pending", 1, "hooks.example.com has an address that is not public")
        assert post.receiver.connections == 0

    posted(test)


def test_a_receiver_that_does_not_answer_has_its_time_and_delays_no_other(posted):
    async def test(post):
        post.receiver.hold = asyncio.Event()
        slow = await post.end_a_job()
        await post.deliveries.tick()
        await eventually(lambda: post.receiver.heard)
        post.receiver.hold, held = None, post.receiver.hold
        quick = await post.end_a_job()
        await post.deliveries.tick()
        await eventually(lambda: len(post.receiver.heard) == 2)
        await post.deliveries.settled()
        held.set()
        assert await post.state(slow) == ("pending", 1, "no answer within 0.3 s")
        assert (await post.state(quick))[0] == "delivered"

    posted(test, delivery_s=0.3)


def test_an_endless_answer_is_not_read(posted):
    async def test(post):
        name = await post.end_a_job()
        post.receiver.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" + b"x" * 100_000
        await post.tick()
        assert (await post.state(name))[0] == "delivered"

    posted(test)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000])
def test_what_speaks_no_http_is_told_again(posted, answer):
    async def test(post):
        name = await post.end_a_job()
        post.receiver.answer = answer
        await post.tick()
        state, tries, note = await post.state(name)
        assert (state, tries) == ("pending", 1)
        assert note.startswith("it could not be reached: ")

    posted(test)


def test_a_name_nobody_knows_is_tried_again(posted):
    async def test(post):
        async def unknown(host, port):
            raise OSError("no such name")

        post.deliveries._sender._resolve = unknown
        name = await post.end_a_job()
        await post.tick()
        assert await post.state(name) == ("pending", 1, "it could not be reached: OSError")

    posted(test)


def test_a_webhook_that_was_removed_or_is_anothers_is_told_nothing(posted):
    async def test(post):
        removed = await post.end_a_job()
        webhooks, post.webhooks = post.webhooks, {}
        await post.tick()
        assert await post.state(removed) == ("failed", 1, "the webhook was removed")
        (record,) = webhooks.values()
        post.webhooks = {"orders": WebhookRecord("id", "orders", record.url, "others", True, 0.0)}
        others = await post.end_a_job()
        await post.tick()
        assert (await post.state(others))[0] == "failed"
        assert post.receiver.heard == []

    posted(test)


def test_a_try_that_cannot_be_recorded_is_not_repeated_meanwhile(posted, monkeypatch):
    async def test(post):
        monkeypatch.setattr("salver.control.job_deliveries._STORE_PAUSE_S", 0.01)
        record_delivery, refused = post.ledger.record_delivery, []

        def full(value):
            refused.append(value)
            future = asyncio.get_running_loop().create_future()
            future.set_exception(SalverError("STORAGE_FULL", "full"))
            return future

        post.ledger.record_delivery = full
        name = await post.end_a_job()
        await post.deliveries.tick()
        await eventually(lambda: len(refused) > 3)
        await post.deliveries.tick()
        post.ledger.record_delivery = record_delivery
        await post.deliveries.settled()
        assert len(post.receiver.heard) == 1
        assert (await post.state(name))[:2] == ("delivered", 1)

    posted(test)


def over_tls(path, certified, test, *, allow_private=True):
    """Run a coroutine function with a `Post` whose receiver has a certificate for the name `certified`."""
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(certified).configure_cert(server_tls)

    async def run():
        async with Receiver(server_tls) as receiver:
            post = Post(path, receiver)
            url = f"https://hooks.example.com:{receiver.port}/"
            post.webhooks = {"orders": WebhookRecord("id", "orders", url, "", allow_private, 0.0)}
            authority.configure_trust(post.deliveries._sender._tls)
            await test(post)
            await post.ledger.close()

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize(
    ("certified", "expected"), [("hooks.example.com", "delivered"), ("other.example.com", "pending")]
)
def test_over_tls_the_certificate_must_be_for_the_name_though_an_address_is_connected_to(tmp_path, certified, expected):
    async def test(post):
        name = await post.end_a_job()
        await post.tick()
        assert (await post.state(name))[0] == expected

    over_tls(tmp_path / "jobs.db", certified, test)


def test_the_checked_address_is_the_one_connected_to(tmp_path, monkeypatch):
    """A name that is public when it is checked and private a moment later has no second moment."""
    monkeypatch.setattr("salver.control.webhook_sender.require_public", lambda host, addresses: None)

    async def test(post):
        await post.end_a_job()
        await post.tick()
        assert post.resolved == ["hooks.example.com"]
        assert post.receiver.connections == 1

    over_tls(tmp_path / "jobs.db", "hooks.example.com", test, allow_private=False)


def test_what_is_not_private_is_never_told_without_tls(posted):
    async def test(post):
        (record,) = post.webhooks.values()
        post.webhooks = {"orders": WebhookRecord("id", "orders", record.url, "", False, 0.0)}
        name = await post.end_a_job()
        await post.tick()
        state, tries, note = await post.state(name)
        assert (state, tries) == ("pending", 1)
        assert "its scheme is not https" in note
        assert (post.resolved, post.receiver.connections) == ([], 0)

    posted(test)


def many_webhooks(post, count):
    (record,) = post.webhooks.values()
    names = [f"w{number:02}" for number in range(count)]
    post.webhooks = {name: WebhookRecord("id", name, record.url, "", True, 0.0) for name in names}
    return names


def test_no_more_than_so_many_are_told_at_once_and_all_webhooks_in_turn(posted):
    async def test(post):
        post.receiver.hold = asyncio.Event()
        names = many_webhooks(post, 36)
        for name in names * 2:
            await post.end_a_job(webhook=name)
        for _ in range(3):
            await post.deliveries.tick()
        assert sorted(name for name, _ in post.deliveries._under_way.values()) == names[:32]
        await eventually(lambda: len(post.receiver.heard) == 32)
        post.receiver.hold.set()
        await post.deliveries.settled()
        await post.deliveries.tick()
        assert next(iter(post.deliveries._under_way.values()))[0] == names[32]
        await post.deliveries.settled()
        await post.tick()
        assert len(post.receiver.heard) == 72

    posted(test)


def test_a_receiver_that_does_not_answer_leaves_room_for_others_and_is_heard_of_at_once(posted, monkeypatch):
    monkeypatch.setattr("salver.control.job_deliveries._LOOK_S", 60.0)

    async def test(post):
        dead, good = many_webhooks(post, 2)
        for _ in range(50):
            await post.end_a_job(webhook=dead)
        ended = [await post.end_a_job(webhook=good) for _ in range(20)]
        silence, tried = asyncio.Event(), []

        async def answer(job, webhook):
            tried.append(webhook.name)
            if webhook.name == dead:
                await silence.wait()
            return Tried(True, "it answered 204")

        monkeypatch.setattr(post.deliveries, "_try", answer)
        running = asyncio.ensure_future(post.deliveries.run())
        await eventually(lambda: tried.count(good) == 20)
        await eventually(lambda: len(post.deliveries._under_way) == 4)
        assert tried.count(dead) == 4
        assert [(await post.state(name))[0] for name in ended] == ["delivered"] * 20
        silence.set()
        await eventually(lambda: tried.count(dead) == 50)
        await post.deliveries.settled()
        running.cancel()

    posted(test)


def test_a_try_that_ends_while_the_store_is_read_is_not_made_again(posted, monkeypatch):
    async def test(post):
        name = await post.end_a_job()
        answer = asyncio.Event()

        async def held(job, webhook):
            await answer.wait()
            return Tried(True, "it answered 204")

        monkeypatch.setattr(post.deliveries, "_try", held)
        await post.deliveries.tick()
        look = post.ledger.due_deliveries

        async def slow(now_s, most):
            found = await look(now_s, most)
            answer.set()
            await post.deliveries.settled()
            return found

        monkeypatch.setattr(post.ledger, "due_deliveries", slow)
        await post.deliveries.tick()
        assert post.deliveries._under_way == {}
        assert (await post.state(name))[:2] == ("delivered", 1)

    posted(test)


def test_a_message_has_a_date_and_no_result():
    from tests.protocol.test_jobs import make_job

    message = json.loads(message_of(make_job()))
    assert message["timestamp"] == "1970-01-01T00:00:03+00:00"
    assert set(message) == {"type", "timestamp", "data"}
