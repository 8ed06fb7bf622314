"""Following the journal over HTTP: no thread for who waits, and nothing left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import until
from tests.control.listening import Listening, listening
from tests.registry.promoting import person

from salver.control.waiting import Followed, Followers, follow
from salver.protocol.errors import SalverError
from salver.testing import ManualLoop, eventually


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with listening(tmp_path_factory.mktemp("changes") / "home") as made:
        made.auditor = made.token("approver", "auditor")
        yield made


def ask(served: Listening, query: str, token: str = ""):
    return served.ask("GET", f"/v1/changes?{query}", token=token or served.auditor)


def change(served: Listening, name: str) -> int:
    served.token("predictor", name)
    return served.admin.records.journal.head()[0]


def test_who_asks_gets_what_came_behind_a_record_and_from_where_to_go_on(served: Listening) -> None:
    before = served.admin.records.journal.head()[0]
    last = change(served, "one")
    found = ask(served, f"after={before}").json
    assert [record["seq"] for record in found["records"]] == list(range(before + 1, last + 1))
    assert (found["position"], found["head"]) == (last, last)
    assert found["records"][-1]["action"] == "create_token"
    assert ask(served, f"after={last}").json == {"records": [], "position": last, "head": last}
    assert ask(served, "").json["records"] == []
    first = ask(served, "after=0&limit=1").json
    assert (len(first["records"]), first["position"]) == (1, 1)


@pytest.mark.parametrize(
    "query", ["after=-1", "limit=0", "limit=1001", "wait_s=61", "wait_s=-1", "actions=a,,b", "x=1"]
)
def test_what_makes_no_sense_is_refused(served: Listening, query: str) -> None:
    assert ask(served, query).code == "INVALID_PARAMETER"


def test_who_waits_is_told_as_soon_as_there_is_something_that_concerns_them(served: Listening) -> None:
    head = served.admin.records.journal.head()[0]
    with ThreadPoolExecutor(3) as pool:
        any_change = pool.submit(ask, served, f"after={head}&wait_s=20")
        webhooks = pool.submit(ask, served, f"after={head}&wait_s=20&actions=create_webhook,remove_webhook")
        about = pool.submit(ask, served, f"after={head}&wait_s=1&subjects=nothing")
        time.sleep(0)
        change(served, "two")
        (record,) = any_change.result().json["records"]
        assert record["action"] == "create_token"
        assert not webhooks.done()
        body = {"name": "chat", "url": "https://chat.example.com/"}
        assert served.ask("POST", "/v1/webhooks", body, token=served.token("admin", "boss")).status == 200
        (record,) = webhooks.result().json["records"]
        assert (record["action"], record["subject"]) == ("create_webhook", "chat")
        nothing = about.result().json
        assert nothing["records"] == []
        assert nothing["position"] > head


def test_many_wait_without_a_thread_each_and_more_are_refused(served: Listening) -> None:
    tokens = [served.token("operator", name) for name in ("ann", "ben")]
    head = served.admin.records.journal.head()[0]
    threads = threading.active_count()
    with ThreadPoolExecutor(70) as pool:
        waiting = [pool.submit(ask, served, f"after={head}&wait_s=60", tokens[each % 2]) for each in range(70)]
        until(lambda: sum(each.done() for each in waiting) == 6, "six find no place")
        # This process has the clients' threads and the server's: of the latter no more than the pool of a few.
        assert threading.active_count() - threads < 70 + 45
        assert served.ask("GET", "/v1/models", token=served.auditor).status == 200
        change(served, "three")
        answers = [each.result() for each in waiting]
    assert [each.code for each in answers].count("QUEUE_FULL") == 6
    assert {len(each.json["records"]) for each in answers if each.code is None} == {1}
    assert ask(served, f"after={head}").status == 200


def test_a_look_that_finds_nothing_of_interest_goes_on_waiting_behind_it(run) -> None:
    async def body(loop: ManualLoop) -> None:
        head, looked = [5], []

        def again(position: int):
            looked.append(position)
            found = position >= 7
            return Followed(f"at {position}", position, 0.0 if found else 30.0, lambda: again(head[0]))

        followers = Followers(lambda: head[0])
        waiting = loop.create_task(follow(followers, again(5)))
        await eventually(lambda: followers._waiting)
        for newest in (6, 7):
            head[0] = newest
            while looked[-1] != newest:
                await loop.turn(0.2)
                await loop.pause()
        assert await waiting == "at 7"
        assert looked == [5, 6, 7]

    run(body)


def test_places_are_bounded(run) -> None:
    async def body(_: ManualLoop) -> None:
        followers, ann = Followers(lambda: 0, most=4), person("ann")
        with followers.place(ann), followers.place(ann):
            with pytest.raises(SalverError, match="ann has 2 of the 4 places for requests that wait for changes"):
                followers.place(ann).__enter__()
            with followers.place(person("ben")):
                pass

    run(body)


def test_the_command_follows_a_home_that_is_served_and_one_that_is_not(tree, models) -> None:
    tree.salver("register", "double", models / "times2.onnx")

    def follow_changes(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "salver", "--json", "changes", "--follow", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | tree.environment,
        )

    following = follow_changes("--after", "0", "--action", "register", "--action", "deploy", "--action", "tag")
    try:
        assert json.loads(following.stdout.readline())["action"] == "register"
        tree.salver("deploy", "double")
        assert json.loads(following.stdout.readline())["action"] == "deploy"
        tree.start()
        tree.salver("tag", "double@1.0.0", "team=risk")
        tagged = json.loads(following.stdout.readline())
        assert (tagged["action"], tagged["subject"]) == ("tag", "double@1.0.0")
    finally:
        following.send_signal(signal.SIGINT)
        following.stdout.close()
        assert following.wait(10) == 130
    code, output, _ = tree.attempt("changes", "--action", "deploy", "--subject", "double")
    assert (code, json.loads(output)["action"]) == (0, "deploy")
