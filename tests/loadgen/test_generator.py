from __future__ import annotations

import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trustme

from salver.loadgen import Arrivals, LoadPlan, LoadReport, Mode, render_report, run_load
from salver.protocol.errors import SalverError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def plan(echo, **changes) -> LoadPlan:
    given = {"connections": 4, "duration_s": 0.2, "warmup_s": 0.0, "path": "/x", "body": b"{}", "timeout_s": 5.0}
    return LoadPlan(echo.url, **(given | changes))


def test_a_closed_loop_counts_every_answer_once(echo):
    report = run_load(plan(echo))
    assert report.ok == report.sent == echo.seen > 100
    assert report.failed == report.unanswered == 0
    assert report.errors == {}
    assert sum(bucket.count for bucket in report.histogram) == report.ok
    assert report.achieved_rate_per_s == pytest.approx(report.ok / 0.2, rel=0.1)
    assert report.lateness is None
    assert 0 < report.generator_cpu_ratio < 2
    assert msgspec.json.decode(msgspec.json.encode(report), type=LoadReport) == report


def test_each_connection_of_a_closed_loop_waits_for_its_answer(echo):
    echo.answer = lambda _: (0.05, OK)
    report = run_load(plan(echo, connections=3))
    assert 3 <= report.ok <= 3 * 5
    assert report.latency.p50_s >= 0.045


def test_percentiles_are_those_of_the_delays(echo):
    echo.answer = lambda number: (0.06 if number % 10 == 9 else 0.0, OK)
    report = run_load(plan(echo, connections=1, duration_s=1.0))
    latency = report.latency
    assert latency.exact
    assert latency.p50_s < 0.05 < latency.p95_s
    assert latency.p95_s <= latency.p99_s <= latency.p999_s <= latency.max_s
    assert sum(bucket.count for bucket in report.histogram if bucket.upto_s > 0.055) == pytest.approx(
        report.ok / 10, abs=2
    )


def test_an_open_loop_shows_the_stall_that_a_closed_loop_hides(echo):
    echo.stall_after(50, 0.2)
    closed = run_load(plan(echo, connections=2, duration_s=1.0))
    echo.stall_after(echo.seen + 50, 0.2)
    opened = run_load(plan(echo, mode=Mode.OPEN, rate_per_s=500.0, connections=2, duration_s=1.0))

    def slower(report: LoadReport, than_s: float) -> int:
        return sum(bucket.count for bucket in report.histogram if bucket.upto_s > than_s)

    # Two connections can have two requests in the pause; a hundred were meant to be sent in it.
    assert closed.latency.max_s >= 0.19
    assert closed.latency.p99_s < 0.1
    assert opened.latency.max_s >= 0.19
    assert opened.latency.p90_s > 0.05
    assert slower(opened, 0.1) > 30
    assert opened.backlog_max > 50
    assert opened.ok == opened.sent
    assert opened.lateness.p50_s < 0.1


def test_an_open_loop_sends_at_its_rate_whatever_the_server_does(echo):
    echo.answer = lambda _: (0.1, OK)
    report = run_load(
        plan(echo, mode=Mode.OPEN, rate_per_s=50.0, connections=2, duration_s=0.4, arrivals=Arrivals.CONSTANT)
    )
    assert report.sent == report.ok == 20
    assert report.achieved_rate_per_s <= 20
    assert report.latency.max_s > 0.5  # twenty requests, twenty a second
    assert any("were answered" in note for note in report.notes)


def test_the_seed_decides_how_many_poisson_requests_leave(echo):
    counts = {
        run_load(
            plan(echo, mode=Mode.OPEN, rate_per_s=300.0), generator=np.random.default_rng(7) if given else None
        ).sent
        for given in (True, True)
    }
    assert len(counts) == 1
    assert counts != {60}


def test_the_warm_up_is_not_counted(echo):
    report = run_load(plan(echo, mode=Mode.OPEN, rate_per_s=100.0, arrivals=Arrivals.CONSTANT, warmup_s=0.5))
    assert report.sent == 20
    assert echo.seen == 70


def test_a_full_backlog_is_counted_and_not_hidden(echo):
    echo.answer = lambda _: (0.2, OK)
    report = run_load(
        plan(echo, mode=Mode.OPEN, rate_per_s=200.0, connections=1, max_backlog=2, arrivals=Arrivals.CONSTANT)
    )
    assert report.errors["BACKLOG_FULL"] == report.failed > 25
    assert report.sent + report.failed == 40
    assert report.backlog_max == 2
    assert any("never sent" in note for note in report.notes)


def test_errors_are_counted_by_status_and_code(echo):
    busy = b"HTTP/1.1 429 Too Many Requests\r\nX-Salver-Error: QUEUE_FULL\r\ncontent-length: 2\r\n\r\n{}"
    bare = b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"
    echo.answer = lambda number: (0.0, (OK, busy, bare)[number % 3])
    report = run_load(plan(echo, mode=Mode.OPEN, rate_per_s=300.0, arrivals=Arrivals.CONSTANT))
    assert report.errors == {"429 QUEUE_FULL": 20, "500": 20}
    assert (report.ok, report.failed) == (20, 40)
    assert sum(bucket.count for bucket in report.histogram) == 20


def test_the_first_error_of_each_kind_is_kept_in_its_own_words(echo):
    def refusal(body):
        return b"HTTP/1.1 400 X\r\nx-salver-error: A\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    bodies = (b'{"error":"first\\n of all"}', b'{"error":"second"}')
    echo.answer = lambda number: (0.0, refusal(bodies[min(number, 1)]))
    report = run_load(plan(echo, connections=1))
    assert report.words == {"400 A": "first of all"}
    echo.answer = lambda _: (0.0, refusal(b'{"error":{"message":"as openai says"}}'))
    assert run_load(plan(echo)).words == {"400 A": "as openai says"}
    echo.answer = lambda _: (0.0, refusal(b"<p>plain</p>"))
    report = run_load(plan(echo))
    assert report.words == {"400 A": "<p>plain</p>"}
    assert "400 A" in render_report(report)
    assert "\n    <p>plain</p>" in render_report(report)


def test_answers_that_are_not_right_count_as_errors(echo):
    seen = set()

    def is_right(number, body):
        seen.add((number, body))
        return number != 1

    report = run_load(plan(echo, connections=1, more_bodies=(b"{1}", b"{2}"), within_s=5.0), is_right=is_right)
    assert seen == {(0, b"{}"), (1, b"{}"), (2, b"{}")}
    assert report.errors == {"WRONG_ANSWER": pytest.approx(report.sent / 3, abs=1)}
    assert report.within == report.ok == report.sent - report.failed
    assert "within 5.00 s: " in render_report(report)


@pytest.mark.parametrize("mode", Mode)
def test_requests_without_an_answer_time_out_and_count_with_the_time_they_waited(echo, mode):
    echo.answer = lambda _: (60.0, OK)
    report = run_load(plan(echo, mode=mode, rate_per_s=100.0, timeout_s=0.2, duration_s=0.3))
    assert report.ok == 0
    assert report.errors["TIMEOUT"] == report.failed > 0
    assert report.latency.p50_s >= 0.2


def test_a_connection_that_the_server_closes_is_opened_again(echo):
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    echo.answer = lambda _: (0.0, closing)
    report = run_load(plan(echo))
    assert report.ok == report.sent > 20
    assert report.reconnects >= report.ok - 4
    assert report.failed == 0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"nonsense\x00", "BAD_HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\x00", "CONNECTION_LOST"),
        (OK + OK, "BAD_HTTP"),
    ],
)
def test_broken_answers_are_failures(echo, answer, problem):
    echo.answer = lambda _: (0.0, answer)
    report = run_load(plan(echo))
    assert report.errors.keys() == {problem}
    assert report.ok == 0


def test_an_answer_in_pieces_is_one_answer(echo):
    chunked = b"HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\nx-salver-error: NOT_READY\r\n\r\n"
    chunked += (b"fff\r\n" + b"x" * 0xFFF + b"\r\n") * 100 + b"0\r\n\r\n"
    echo.answer = lambda _: (0.0, chunked)
    report = run_load(plan(echo, connections=1))
    assert set(report.errors) == {"503 NOT_READY"}


def test_beyond_the_samples_kept_the_report_says_that_it_estimates(echo):
    report = run_load(plan(echo, max_samples=100))
    assert not report.latency.exact
    assert sum(bucket.count for bucket in report.histogram) == 100
    assert any("uniform sample" in note for note in report.notes)


def test_the_request_is_what_the_plan_says(echo):
    run_load(plan(echo, path="/v2/a%20b", body=b'{"a":1}', headers=(("authorization", "Bearer t"),)))
    assert (
        echo.requests[0]
        == (
            f"POST /v2/a%20b HTTP/1.1\r\nhost: 127.0.0.1:{echo.port}\r\nauthorization: Bearer t\r\n"
            'user-agent: salver-bench/0.1.0\r\ncontent-length: 7\r\n\r\n{"a":1}'
        ).encode()
    )


def test_an_empty_body_is_a_get(echo):
    run_load(plan(echo, body=b""))
    assert echo.requests[0].startswith(b"GET /x HTTP/1.1\r\n")


def test_progress_is_told_while_it_runs(echo):
    told = []
    run_load(plan(echo, warmup_s=0.3, duration_s=0.6), on_progress=told.append)
    assert [told[0].phase, told[1].phase] == ["connecting", "warming"]
    assert {"measuring", "finishing"} <= {progress.phase for progress in told}
    assert all(a.elapsed_s <= b.elapsed_s <= b.total_s for a, b in itertools.pairwise(told))
    assert told[-1].ok > 100
    assert told[-1].total_s == pytest.approx(0.9)


def test_what_the_progress_callback_raises_reaches_the_caller(echo):
    def complain(progress):
        if progress.phase == "measuring":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_load(plan(echo), on_progress=complain)


def test_nobody_there_is_one_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(SalverError, match="salver serve") as caught:
        run_load(LoadPlan(f"http://127.0.0.1:{port}", "/"))
    assert caught.value.code == "NOT_READY"


def test_a_server_that_dies_ends_in_a_report(echo):
    def die_soon(progress):
        if progress.phase == "measuring" and not died:
            died.append(True)
            echo.answer = lambda _: (0.0, b"\x00")

    died = []
    report = run_load(plan(echo, duration_s=0.8), on_progress=die_soon)
    assert report.errors


def test_tls_is_spoken_with_those_who_are_trusted(tmp_path):
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    with tls_echo(server) as port:
        report = run_load(
            LoadPlan(f"https://127.0.0.1:{port}", "/", duration_s=0.3, warmup_s=0, connections=2), tls=client
        )
        assert report.ok > 10
        assert report.failed == 0
        with pytest.raises(SalverError, match="not trusted") as caught:
            run_load(LoadPlan(f"https://127.0.0.1:{port}", "/", duration_s=0.3))
        assert caught.value.code == "REFUSED_BY_POLICY"


class tls_echo:  # noqa: N801 - used as a function
    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def __enter__(self) -> int:
        import asyncio

        ready = threading.Event()

        async def one(reader, writer):
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(OK)
            except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                writer.close()

        async def main():
            self.loop, self.done = asyncio.get_running_loop(), asyncio.Event()
            self.loop.set_exception_handler(lambda *_: None)
            server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=self.context)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self.done.wait()
            server.close()

        self.thread = threading.Thread(target=asyncio.run, args=(main(),))
        self.thread.start()
        assert ready.wait(10)
        return self.port

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.done.set)
        self.thread.join()


PROGRAM = """
import sys, msgspec
from salver.loadgen import LoadPlan, run_load
def told(progress):
    if progress.phase == "measuring": print("measuring", flush=True)
plan = LoadPlan(sys.argv[1], "/", duration_s=60, warmup_s=0, connections=2)
report = run_load(plan, on_progress=told)
try:
    print(msgspec.json.encode(report).decode(), flush=True)
    sys.stdin.read(1)
except KeyboardInterrupt:
    print("interrupted again")
"""


def test_ctrl_c_ends_the_run_with_what_it_has(echo):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, echo.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "measuring\n"
        os.kill(process.pid, signal.SIGINT)
        line = next(line for line in process.stdout if line.startswith("{"))
        report = msgspec.json.decode(line, type=LoadReport)
        assert report.interrupted
        assert report.measured_s < 30
        # Ctrl-C is Python's own again afterwards.
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate()[0] == "interrupted again\n"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_it_runs_in_any_thread(echo):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(run_load(plan(echo))))
    thread.start()
    thread.join()
    assert reports[0].ok > 100


def test_nothing_stays_open(echo):
    run_load(plan(echo, duration_s=0.05))
    before = descriptors()
    run_load(plan(echo, duration_s=0.05, mode=Mode.OPEN, rate_per_s=100.0))
    # The server's ends close a moment later, in its own thread.
    mine = {fd for fd in descriptors() - before if not is_end_of(fd, echo.port)}
    assert mine == set()


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def is_end_of(descriptor: str, port: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(int(descriptor))) as found:
            return found.getsockname()[1] == port
    except (OSError, TypeError, IndexError):
        return True
