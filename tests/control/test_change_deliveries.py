"""Webhooks are told of changes: in order, at least once, and one that does not listen holds up no other."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import os
import signal
import threading

import pytest
from tests.control.receiving import Receiver
from tests.homes import home

from salver.control.change_deliveries import ChangeDeliveries
from salver.control.webhook_sender import Sender
from salver.protocol.errors import SalverError
from salver.registry.webhooks import WebhookRequest
from salver.security.access import Principal, PrincipalKind, Role, local_principal
from salver.security.signing import webhook_secret
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.registry_schema import change_deliveries, change_positions
from salver.testing import ManualClock, eventually

__all__ = ["home"]

PEPPER = b"p" * 32
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
ME = local_principal()


class Told:
    """A registry whose changes webhooks are told of, and the loop that tells."""

    def __init__(self, home: Home, *, tries: int = 3, limit_s: float = 5.0) -> None:
        from salver.registry.records import Records

        self.clock = ManualClock()
        self.database = open_database(home)
        self.records = Records(home, self.database, self.clock)
        self.positions = self.records.change_positions
        self.tries, self.limit_s = tries, limit_s
        self.restart()

    async def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def restart(self) -> None:
        """What a new controller makes of it."""
        sender = Sender(PEPPER, self.limit_s, self.clock, resolve=self.resolve)
        self.deliveries = ChangeDeliveries(self.positions, sender, self.tries, self.clock)

    def webhook(self, name: str, receiver: Receiver, *events: str):
        url = f"http://hooks.example.com:{receiver.port}/{name}"
        made = self.records.webhooks.create(ME, WebhookRequest(name, url, "", True, events or ("*",)))
        return made.record

    def change(self, action: str = "tag", subject: str = "double@1.0.0", **details) -> int:
        with self.database.begin() as connection:
            record = self.records.journal.append(
                connection, actor="ann", action=action, subject=subject, details=details, before=1, after=2
            )
        return record.seq

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            await self.deliveries.tick()
            await self.deliveries.settled()


def heard(receiver: Receiver) -> list[int]:
    return [json.loads(body)["data"]["seq"] for _, _, body in receiver.heard]


@pytest.fixture
def told(home):
    """Run a coroutine function with a `Told` and as many receivers as it takes."""

    def start(test, *, receivers: int = 1, **options):
        made = Told(home, **options)

        async def run():
            async with asyncio.timeout(30):
                several = [Receiver() for _ in range(receivers)]
                for each in several:
                    await each.__aenter__()
                try:
                    await test(made, *several)
                finally:
                    for each in several:
                        await each.__aexit__()

        try:
            asyncio.run(run())
        finally:
            made.database.close()

    return start


def test_a_change_is_told_signed_with_all_that_the_journal_says(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.change()
        webhook = made.webhook("chat", receiver)
        seq = made.change("promote", source="staging", target="production")
        await made.tick(2)
        ((first, headers, body),) = receiver.heard
        assert first == "POST /chat HTTP/1.1"
        assert headers["webhook-id"] == f"chg_{webhook.id}_{seq}"
        signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        expected = base64.b64encode(hmac.digest(webhook_secret(PEPPER, webhook.id), signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        message = json.loads(body)
        assert message["type"] == "change.promote"
        data = message["data"]
        assert (data["seq"], data["actor"], data["subject"]) == (seq, "ann", "double@1.0.0")
        assert data["details"] == {"source": "staging", "target": "production"}
        assert data["before"] != data["after"]
        assert made.positions.of("chat").position == seq

    told(test)


def test_changes_come_in_order_and_only_those_that_are_wanted(told) -> None:
    async def test(made: Told, all_of_them: Receiver, some: Receiver) -> None:
        made.webhook("all", all_of_them)
        made.webhook("some", some, "promote", "deploy")
        begun = made.records.journal.head()[0]
        seqs = {made.change(action): action for action in ["tag", "promote", "alias", "deploy"] * 3}
        await made.tick(14)
        assert heard(all_of_them) == [begun, *seqs]
        assert heard(some) == [seq for seq, action in seqs.items() if action in ("promote", "deploy")]

    told(test, receivers=2)


def test_what_is_not_taken_holds_back_what_comes_behind_it_and_no_other_webhook(told) -> None:
    async def test(made: Told, bad: Receiver, good: Receiver) -> None:
        made.webhook("bad", bad, "tag")
        made.webhook("good", good, "tag")
        bad.answer = b"HTTP/1.1 500 Oops\r\n\r\n"
        seqs = [made.change() for _ in range(3)]
        await made.tick(4)
        assert (heard(bad), heard(good)) == (seqs[:1], seqs)
        (waiting,) = made.positions.of("bad").waiting
        assert (waiting.seq, waiting.attempts, waiting.note) == (seqs[0], 1, "it answered 500")
        made.clock.advance(5.0)
        made.restart()
        bad.answer = OK
        await made.tick(4)
        assert heard(bad) == [seqs[0], *seqs]
        assert len({headers["webhook-id"] for _, headers, _ in bad.heard}) == 3
        assert made.positions.of("bad").waiting == ()

    told(test, receivers=2)


def test_what_is_never_taken_is_given_up_and_can_be_told_again(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.webhook("chat", receiver, "tag")
        receiver.answer = b"HTTP/1.1 503 Later\r\n\r\n"
        first, second = made.change(), made.change()
        for _ in range(3):
            await made.tick()
            made.clock.advance(3600.0)
        state = made.positions.of("chat")
        assert [(each.seq, each.attempts, each.note) for each in state.dead] == [(first, 3, "it answered 503")]
        receiver.answer = OK
        await made.tick(2)
        assert heard(receiver) == [first] * 3 + [second]
        assert made.positions.redeliver(ME, "chat").seqs == (first,)
        await made.tick(2)
        assert heard(receiver)[4:] == [first]
        state = made.positions.of("chat")
        assert (state.dead, state.waiting, state.position >= second) == ((), (), True)
        assert made.records.journal.records(after=second)[0].action == "redeliver"
        with pytest.raises(SalverError, match="no record was given up"):
            made.positions.redeliver(ME, "chat")

    told(test)


def test_what_is_told_again_and_not_taken_holds_back_nothing(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.webhook("chat", receiver, "tag")
        receiver.answer = b"HTTP/1.1 410 Gone\r\n\r\n"
        first = made.change()
        await made.tick()
        assert [each.seq for each in made.positions.of("chat").dead] == [first]
        made.positions.redeliver(ME, "chat", first)
        receiver.answer = b"HTTP/1.1 500 Oops\r\n\r\n"
        await made.tick()
        assert [each.attempts for each in made.positions.of("chat").waiting] == [1]
        second = made.change()
        receiver.answer = OK
        await made.tick(2)
        assert heard(receiver) == [first, first, second]
        made.clock.advance(5.0)
        await made.tick(2)
        assert heard(receiver)[3:] == [first]

    told(test)


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (b"HTTP/1.1 307 There\r\nlocation: http://127.0.0.1:1/\r\n\r\n", "it answered 307"),
        (b"SSH-2.0-OpenSSH\r\n", "it could not be reached: RemoteProtocolError"),
        (b"", "it could not be reached: RemoteProtocolError"),
    ],
)
def test_an_answer_that_is_none_is_tried_again_later(told, answer, note) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.webhook("chat", receiver, "tag")
        receiver.answer = answer
        made.change()
        await made.tick(3)
        assert [each.note for each in made.positions.of("chat").waiting] == [note]
        assert receiver.connections == 1

    told(test)


def test_a_receiver_that_hangs_has_its_time_and_delays_no_other(told) -> None:
    async def test(made: Told, hanging: Receiver, good: Receiver) -> None:
        hanging.hold = asyncio.Event()
        made.webhook("hanging", hanging, "tag")
        made.webhook("good", good, "tag")
        seqs = [made.change() for _ in range(4)]
        running = asyncio.ensure_future(made.deliveries.run())
        await eventually(lambda: heard(good) == seqs)
        assert len(hanging.heard) == 1
        await eventually(lambda: made.positions.of("hanging").waiting)
        running.cancel()
        assert made.positions.of("hanging").waiting[0].note == "no answer within 0.5 s"

    told(test, receivers=2, limit_s=0.5)


def test_an_address_inside_is_not_connected_to_unless_it_was_allowed(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        url = f"https://hooks.example.com:{receiver.port}/"
        made.records.webhooks.create(ME, WebhookRequest("chat", url, "", False, ("tag",)))
        made.change()
        await made.tick()
        assert [each.note for each in made.positions.of("chat").waiting] == [
            "hooks.example.com has an address that is not public"
        ]
        assert receiver.connections == 0

    told(test)


def test_a_webhook_begins_with_what_comes_after_it_and_ends_with_all_that_is_kept_of_it(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.change()
        made.webhook("chat", receiver)
        await made.tick(2)
        assert receiver.heard == []
        receiver.answer = b"HTTP/1.1 500 Oops\r\n\r\n"
        made.change()
        await made.tick()
        (due,) = made.positions.due(made.clock.wall_s() + 100)
        made.records.webhooks.remove(ME, "chat")
        made.positions.failed(due, "too late", 0.0)
        made.positions.given_up(due, "too late", 0.0)
        made.positions.told(due)
        with made.database.read() as connection:
            assert connection.execute(change_positions.select()).all() == []
            assert connection.execute(change_deliveries.select()).all() == []
        with pytest.raises(SalverError, match="no webhook 'chat'"):
            made.positions.of("chat")
        made.webhook("chat", receiver)
        made.positions.failed(due, "of the one before", 0.0)
        made.positions.given_up(due, "of the one before", 0.0)
        assert (made.positions.of("chat").waiting, made.positions.of("chat").dead) == ((), ())
        assert made.positions.due(made.clock.wall_s()) == ()

    told(test)


def test_what_does_not_concern_a_webhook_is_passed_by(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.webhook("chat", receiver, "promote")
        for _ in range(300):
            made.change()
        await made.tick()
        assert made.positions.of("chat").position == made.records.journal.head()[0]
        assert receiver.heard == []

    told(test)


def test_a_database_that_is_away_is_waited_for_and_the_try_not_repeated(told, monkeypatch) -> None:
    monkeypatch.setattr("salver.control.change_deliveries._STORE_PAUSE_S", 0.01)

    async def test(made: Told, receiver: Receiver) -> None:
        made.webhook("chat", receiver, "tag")
        made.change()
        note, refused = made.positions.told, []

        class Away:
            due = made.positions.due

            def told(self, due) -> None:
                refused.append(due)
                if len(refused) < 4:
                    raise SalverError("CONTROL_UNAVAILABLE", "away")
                note(due)

        made.deliveries._positions = Away()
        await made.tick(2)
        assert (len(refused), len(receiver.heard)) == (4, 1)

    told(test)


def test_a_clock_that_is_set_back_does_not_silence_anybody(told) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        made.webhook("chat", receiver, "tag")
        receiver.answer = b"HTTP/1.1 500 Oops\r\n\r\n"
        made.change()
        await made.tick()
        wall = made.clock.wall_s()
        made.clock.wall_s = lambda: wall - 86_400.0
        await made.tick()
        assert len(receiver.heard) == 2

    told(test)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        (("register", "promotion"), "INVALID_PARAMETER"),
        (("../x",), "INVALID_PARAMETER"),
        (("",), "INVALID_PARAMETER"),
        (("register",) * 101, "INVALID_SETTING"),
    ],
)
def test_events_that_cannot_be_are_refused(told, events, code) -> None:
    async def test(made: Told, receiver: Receiver) -> None:
        with pytest.raises(SalverError) as raised:
            made.webhook("chat", receiver, *events)
        assert raised.value.code == code
        request = WebhookRequest("chat", "https://a.example/", "acme", actions=("*",))
        with pytest.raises(SalverError, match="changes belong to no tenant"):
            made.records.webhooks.create(ME, request)
        developer = Principal("dev", Role.DEVELOPER, "default", PrincipalKind.TOKEN)
        with pytest.raises(SalverError, match="may not see to jobs"):
            made.positions.redeliver(developer, "chat")

    told(test)


class Listener(http.server.ThreadingHTTPServer):
    """A receiver in threads of its own; it answers nothing good until it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.tried: list[int] = []
        self.good = False
        listener = self

        class Page(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                seq = body["data"]["seq"]
                listener.tried.append(seq)
                if listener.good:
                    listener.taken.append(seq)
                self.send_response(204 if listener.good else 500)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Page)


def test_a_controller_that_is_killed_loses_and_skips_nothing(tree, models) -> None:
    listener = Listener()
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    try:
        tree.start()
        url = f"http://127.0.0.1:{listener.server_port}/"
        told = ("--action", "tag", "--action", "register")
        made = tree.salver("webhook", "create", "chat", url, "--allow-private", *told)
        assert made["record"]["actions"] == ["tag", "register"]
        tree.salver("register", "double", models / "times2.onnx")
        tree.until(lambda: listener.tried, "a first try, which fails")
        listener.good = True
        for number in range(6):
            tree.salver("tag", "double@1.0.0", f"n={number}")
            if number % 2:
                os.kill(tree.controller_pid, signal.SIGKILL)
        records = tree.salver("audit", "--limit", "1000")
        wanted = [row["seq"] for row in records if row["action"] in ("tag", "register")]
        assert len(wanted) == 7
        tree.until(lambda: wanted[-1] in listener.taken, "all is told")
        first_times = list(dict.fromkeys(listener.taken))
        assert first_times == wanted
        state = tree.salver("webhook", "dead", "chat")
        assert state["dead"] == []
        code, _, complaint = tree.attempt("webhook", "redeliver", "chat", "1")
        assert (code, "NOT_FOUND" in complaint) == (1, True)
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
