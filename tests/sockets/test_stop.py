from __future__ import annotations

import http.client
import json
import signal
import threading
from urllib.parse import urlsplit

SLOW_TURNS = 6e5


def test_sigterm_under_load_loses_no_request_and_exits_with_0(tree, models, load) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start(SALVER_SERVER_LAME_DUCK_S="0.3")
    clients = load(tree, "double", clients=4)
    tree.until(lambda: len(clients.ledger) > 50, "some answers")
    tree.signal(signal.SIGTERM)
    tree.until(lambda: tree.get("/v2/health/ready").status == 503, "not ready any more, and still serving")
    assert tree.wait() == 0
    ledger = clients.end()
    # Replies of a server that drains say that their connection closes, so what was sent was accepted.
    lost = [o for o in ledger if o.problem and o.sent and not (o.fresh and o.problem == "ConnectionResetError")]
    assert lost == []
    assert all(outcome.answer == 2 * outcome.value for outcome in ledger if not outcome.problem)


def test_a_request_in_flight_at_sigterm_is_answered(tree, models) -> None:
    tree.salver("register", "loop", models / "loop.onnx")
    tree.salver("deploy", "loop", "--placement", "thread")
    tree.start()
    place = urlsplit(tree.http)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    connection.request("POST", "/v2/models/loop/infer", json.dumps(tree.rows([1, SLOW_TURNS])))
    tree.until(lambda: tree.endpoint("loop").get("running"), "it computes")
    tree.signal(signal.SIGTERM)
    answer = connection.getresponse()
    assert json.loads(answer.read())["outputs"][0]["data"] == [1, SLOW_TURNS]
    assert answer.getheader("connection") == "close"
    connection.close()
    assert tree.wait() == 0
    assert len(tree.events("draining")) == 1


def test_sigint_drains_without_the_pause_for_load_balancers(tree) -> None:
    tree.start(SALVER_SERVER_LAME_DUCK_S="60")
    tree.signal(signal.SIGINT)
    assert tree.wait() == 0
    assert [event["lame_duck_s"] for event in tree.events("draining")] == [0.0]


def test_a_second_signal_ends_everything_at_once_with_1(tree) -> None:
    tree.start(SALVER_SERVER_LAME_DUCK_S="60")
    tree.signal(signal.SIGTERM)
    tree.until(lambda: tree.events("draining"), "it drains")
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 1
    tree.until(tree.is_gone, "nothing is left", 5)


def test_a_load_that_waits_on_the_control_listener_does_not_hold_up_the_end(tree, models, tmp_path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text((models / "times3.py").read_text() + "\n    def load(self, directory):\n        time.sleep(600)\n")
    tree.start()
    tree.salver("register", "slow", slow)
    waiting = threading.Thread(
        target=lambda: tree.administer("POST", "/v2/repository/models/slow/load", headers={"Connection": "close"}),
    )
    waiting.start()
    tree.until(lambda: tree.endpoint("slow").get("state") == "loading", "it loads")
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    waiting.join(timeout=10)
    assert not waiting.is_alive()
