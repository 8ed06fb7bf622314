"""Jobs on a real server: what was accepted is done once, whatever is killed on the way."""

import contextlib
import http.server
import json
import os
import signal
import threading
from typing import ClassVar

import pytest


def submit(tree, model, values, **headers):
    sent = {"content-type": "application/json"} | headers
    answer = tree.ask(tree.http, "POST", f"/v2/models/{model}/jobs", tree.rows(values), sent)
    assert answer.status == 202, answer.body
    return answer.json["id"]


def ended(tree, job):
    def look():
        with contextlib.suppress(OSError):
            shown = tree.get(f"/v2/jobs/{job}", headers={"prefer": "wait=5"})
            if shown.status == 200 and shown.json["state"] not in ("queued", "running"):
                return shown.json
        return None

    return tree.until(look, f"job {job} has ended")


def result(tree, job):
    answer = tree.get(f"/v2/jobs/{job}/result")
    assert answer.status == 200, answer.body
    return answer.json["outputs"][0]["data"]


@pytest.fixture(scope="module")
def slow(trees, models):
    """A tree that serves `times3`, which sleeps as many milliseconds as its largest value from 1000 on.

    Every test leaves it serving, whatever it has killed.
    """
    tree = trees()
    tree.salver("register", "times3", models / "times3.py", "--trust-code")
    tree.salver("deploy", "times3")
    tree.start()
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert not tree.left_behind()
    assert not tree.events("fault")


def test_a_job_that_ran_when_its_server_process_was_killed_runs_again_and_has_one_result(slow):
    first = submit(slow, "times3", [1500, 0])
    slow.until(lambda: slow.get(f"/v2/jobs/{first}").json["state"] == "running", "it runs")
    waiting = [submit(slow, "times3", [number, 1]) for number in range(5)]
    os.kill(slow.server_pid, signal.SIGKILL)
    shown = ended(slow, first)
    assert (shown["state"], shown["attempts"]) == ("done", 2)
    assert result(slow, first) == [4500, 0]
    for number, job in enumerate(waiting):
        assert ended(slow, job)["state"] == "done"
        assert result(slow, job) == [3 * number, 3]
    assert slow.events("jobs_taken_over")


def test_jobs_outlive_the_whole_server_killed_or_stopped(slow):
    done = submit(slow, "times3", [1, 2])
    assert ended(slow, done)["state"] == "done"
    running = submit(slow, "times3", [2000, 0])
    slow.until(lambda: slow.get(f"/v2/jobs/{running}").json["state"] == "running", "it runs")
    slow.signal(signal.SIGKILL)
    slow.wait()
    slow.until(slow.is_gone, "all are gone", 10)
    slow.start()
    assert result(slow, done) == [3, 6]
    assert ended(slow, running)["state"] == "done"
    assert slow.stop() == 0
    slow.start()
    assert result(slow, running) == [6000, 0]


def test_a_worker_that_is_killed_costs_an_attempt_at_most(slow):
    job = submit(slow, "times3", [1500, 0])
    slow.until(lambda: slow.get(f"/v2/jobs/{job}").json["state"] == "running", "it runs")
    for pid in slow.endpoint("times3")["workers"]:
        os.kill(pid, signal.SIGKILL)
    assert ended(slow, job)["state"] == "done"
    assert result(slow, job) == [4500, 0]


def test_an_orderly_end_gives_back_what_does_not_end_in_time(tree, models):
    tree.salver("register", "times3", models / "times3.py", "--trust-code")
    tree.salver("deploy", "times3")
    tree.start(SALVER_SERVER_DRAIN_S="0")
    job = submit(tree, "times3", [20_000, 0])
    tree.until(lambda: tree.get(f"/v2/jobs/{job}").json["state"] == "running", "it runs")
    tree.stop()  # not with 0: the model goes on for longer than anybody waits
    (found,) = tree.salver("jobs", "list")["jobs"]
    assert (found["id"], found["state"], found["attempts"]) == (job, "queued", 0)
    assert tree.salver("jobs", "cancel", job)["state"] == "cancelled"


class Hook(http.server.BaseHTTPRequestHandler):
    heard: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append((self.headers["webhook-id"], json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def hook():
    Hook.heard = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jobs"
        server.shutdown()
        thread.join()


def test_operators_say_who_is_told_and_a_killed_controller_forgets_nobody(slow):
    with hook() as url:
        for address, status, code in ((url, 400, "INVALID_SETTING"), ("https://127.0.0.1/", 403, "REFUSED_BY_POLICY")):
            refused = slow.administer("POST", "/v1/webhooks", {"name": "orders", "url": address})
            assert (refused.status, refused.code) == (status, code)
        made = slow.administer("POST", "/v1/webhooks", {"name": "orders", "url": url, "allow_private": True})
        assert made.json["secret"].startswith("whsec_")
        assert made.json["secret"] not in slow.administer("GET", "/v1/webhooks").body.decode()

        def accepted():
            sent = {"content-type": "application/json"}
            answer = slow.ask(slow.http, "POST", "/v2/models/times3/jobs?webhook=orders", slow.rows([1500, 0]), sent)
            return answer.json["id"] if answer.status == 202 else None

        job = slow.until(accepted, "the webhook is known")
        os.kill(slow.controller_pid, signal.SIGKILL)
        assert ended(slow, job)["state"] == "done"
        slow.until(lambda: Hook.heard, "the webhook is told")
        message_id, message = Hook.heard[0]
        assert (message_id, message["type"], message["data"]["id"]) == (f"msg_{job}", "job.done", job)
        told = slow.until(
            lambda: (now := slow.get(f"/v2/jobs/{job}").json["webhook"])["state"] == "delivered" and now, "it is noted"
        )
        assert told["attempts"] >= 1
        assert slow.administer("GET", f"/v1/jobs/{job}").json["state"] == "done"
        assert slow.administer("DELETE", "/v1/webhooks/orders").status == 200


def test_a_damaged_store_stops_jobs_and_nothing_else_until_it_is_replaced(tree, models):
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    store = tree.home / "jobs.db"
    store.write_bytes(b"no database" * 1000)
    tree.start()
    headers = {"content-type": "application/json"}
    refused = tree.ask(tree.http, "POST", "/v2/models/double/jobs", tree.rows([1, 2]), headers)
    assert (refused.status, refused.code) == (500, "CORRUPT_ARTIFACT")
    assert str(tree.home) not in refused.body.decode()
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert tree.get("/v2/health/ready").status == 200
    code, output, _ = tree.attempt("doctor")
    assert code == 1
    (found,) = [row for row in json.loads(output) if row["check"] == "job store"]
    assert (found["state"], found["found"]) == ("error", "the job store is damaged")
    store.unlink()
    job = submit(tree, "double", [1, 2])
    assert ended(tree, job)["state"] == "done"
