from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from salver.runtime.recorder import read_recorder

FOR_EVER = 1e15


@pytest.fixture
def looping(tree, models):
    """A tree with `double`, which is quick, and `loop`, whose requests decide how long they take."""
    for name, model in (("double", "times2"), ("loop", "loop")):
        tree.salver("register", name, models / f"{model}.onnx")
    tree.salver("deploy", "double")
    return tree


def test_a_version_that_hangs_in_a_thread_fails_its_request_and_moves_to_a_worker(looping, models, tmp_path) -> None:
    # By its profile its batches are long, so `auto` puts it into a thread.
    np.save(tmp_path / "long.npy", np.full((10, 2), 3000, np.float32))
    looping.salver("register", "loop", models / "loop.onnx", "--version", "2.0.0", "--profile", tmp_path / "long.npy")
    looping.salver("deploy", "loop", "--hang", "0.3")
    looping.start()
    server = looping.server_pid
    assert looping.endpoint("loop")["placement"] == "thread"
    answer = looping.infer("loop", [1, FOR_EVER])
    assert (answer.status, answer.code) == (504, "MODEL_HUNG")
    assert looping.predict("double", [1, 2]) == [2, 4]
    row = looping.until(
        lambda: (row := looping.endpoint("loop"))["placement"] == "process" and row["available"] and row, "it moves"
    )
    assert len(row["workers"]) == 1
    assert looping.predict("loop", [1, 3]) == [1, 3]
    # Hanging again costs the worker only.
    answer = looping.infer("loop", [1, FOR_EVER])
    assert (answer.status, answer.code) == (504, "MODEL_HUNG")
    assert looping.until(lambda: looping.infer("loop", [1, 4]).status == 200, "the next worker answers")
    assert looping.server_pid == server
    # Why it is there can be seen, and undone without a restart, from the next load on.
    (isolated,) = looping.administer("GET", "/v1/status").json["isolated"]
    assert (isolated["references"], isolated["cause"]) == (["loop@1.0.0", "loop@2.0.0"], "hung")
    assert looping.salver("isolated", "--clear", "loop@2.0.0") == isolated
    looping.salver("deploy", "loop", "--wait")
    assert looping.endpoint("loop")["placement"] == "thread"
    assert looping.server_pid == server
    assert looping.salver("audit")[-2]["action"] == "end_isolation"


def test_an_event_loop_that_stands_still_is_replaced_and_the_version_comes_back_in_a_worker(looping) -> None:
    looping.salver("deploy", "loop")
    looping.start(SALVER_SERVER_HANG_S="1")
    server = looping.server_pid
    assert looping.endpoint("loop")["placement"] == "inline"
    _ask_without_waiting(looping, FOR_EVER)
    looping.until(lambda: looping.server_pid != server, "another server process")
    assert looping.predict("double", [1, 2]) == [2, 4]
    row = looping.wait_serving("loop", "loop@1.0.0")
    assert row["placement"] == "process"
    assert [row["cause"] for row in looping.salver("isolated")] == ["hung"]
    assert looping.predict("loop", [1, 5]) == [1, 5]
    assert len(looping.events("child_hung")) == 1
    # Also after the next start.
    assert looping.stop() == 0
    looping.start()
    assert looping.endpoint("loop")["placement"] == "process"


def test_a_version_that_must_stay_inline_stays_there_and_the_others_are_served_again(looping) -> None:
    looping.salver("deploy", "loop", "--placement", "inline")
    looping.start(SALVER_SERVER_HANG_S="1")
    for turn in (1, 2):
        server = looping.server_pid
        _ask_without_waiting(looping, FOR_EVER)
        looping.until(lambda server=server: looping.server_pid != server, "another server process")
        assert looping.predict("double", [1, 2]) == [2, 4]
        assert looping.wait_serving("loop", "loop@1.0.0")["placement"] == "inline"
        assert len(looping.events("child_hung")) == turn


def test_a_version_that_crashes_the_server_process_moves_to_a_worker(looping) -> None:
    looping.salver("deploy", "loop")
    looping.start()
    server = looping.server_pid
    _ask_without_waiting(looping, 1e7)
    recorder = looping.home / "run" / "recorder-0"
    looping.until(lambda: read_recorder(recorder)[1], "it computes")
    os.kill(server, signal.SIGSEGV)
    looping.until(lambda: looping.server_pid != server, "another server process")
    assert looping.predict("double", [1, 2]) == [2, 4]
    assert looping.wait_serving("loop", "loop@1.0.0")["placement"] == "process"
    assert [row["cause"] for row in looping.salver("isolated")] == ["crashed"]
    died = looping.events("child_died")
    assert [(event["child"], event["code"]) for event in died] == [("server", -signal.SIGSEGV)]


def test_a_controller_that_stands_still_is_replaced_and_serving_goes_on(looping, load) -> None:
    looping.start(SALVER_SERVER_HANG_S="1")
    clients = load(looping, "double", clients=1)
    before, server = looping.controller_pid, looping.server_pid
    os.kill(before, signal.SIGSTOP)
    looping.until(lambda: looping.controller_pid != before, "another controller")
    assert looping.salver("status")["endpoints"][0]["state"] == "ready"
    assert looping.server_pid == server
    assert [(event["child"], event["pid"]) for event in looping.events("child_hung")] == [("controller", before)]
    assert [outcome for outcome in clients.end() if outcome.problem] == []


def _ask_without_waiting(tree, turns: float) -> None:
    def ask() -> None:
        try:
            tree.infer("loop", [1, turns], timeout_s=60)
        except OSError:
            return

    threading.Thread(target=ask, daemon=True).start()
