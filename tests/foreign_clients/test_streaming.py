"""Answers bit by bit from `salver serve`, read by clients that people have."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
import websockets

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = ROOT / ".venvs" / "tritonclient" / "bin" / "python"
ENDLESS = {"text_input": "of the", "max_words": 10**9}


@pytest.fixture(scope="module")
def served(trees, tmp_path_factory):
    """A server with the example that generates words."""
    folder = tmp_path_factory.mktemp("generator") / "words-model"
    runpy.run_path(str(ROOT / "examples" / "generator" / "make.py"))["main"](folder)
    tree = trees()
    tree.salver("register", "words", folder)
    tree.salver("deploy", "words", "--hang", "20")
    tree.start("--grpc", "0")
    yield tree
    assert tree.stop() == 0
    tree.until(tree.is_gone, "nothing is left", 5)
    assert not tree.events("fault")


def opened(tree):
    """How many streams are open."""
    line = next(line for line in tree.get("/metrics").body.decode().splitlines() if line.startswith("salver_open_str"))
    return float(line.rpartition(" ")[2])


def streamed(tree, body, path="generate_stream"):
    return httpx2.stream("POST", f"{tree.http}/v2/models/words/{path}", json=body, timeout=20)


def data_of(lines):
    return (json.loads(line.removeprefix("data: ")) for line in lines if line)


def test_tritons_grpc_client_reads_several_answers_to_one_message(served):
    assert PYTHON.exists(), "make venv-tritonclient makes the environment this test drives"
    done = subprocess.run(
        [PYTHON, HERE / "triton_stream_client.py", served.ready["grpc"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 5, done.stdout
    served.until(lambda: opened(served) == 0, "streams that were left are closed")


def test_events_are_what_one_answer_is_joined_of(served):
    body = {"text_input": "of the", "max_words": 30}
    with streamed(served, body) as response:
        assert response.headers["content-type"] == "text/event-stream"
        parts = [event["text_output"] for event in data_of(response.iter_lines())]
    joined = httpx2.post(f"{served.http}/v2/models/words/generate", json=body).json()["text_output"]
    assert len(parts) == 30
    assert "".join(parts) == joined


def test_an_http_client_that_leaves_ends_its_stream(served):
    with streamed(served, ENDLESS) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        assert opened(served) == 1
    served.until(lambda: opened(served) == 0, "the stream is closed")


def test_a_client_that_does_not_read_costs_nothing_while_others_are_answered(served):
    place, body = urlsplit(served.http), json.dumps(ENDLESS)
    head = f"POST /v2/models/words/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((place.hostname, place.port))
        connection.sendall((head + body).encode())
        served.until(lambda: opened(served) == 1, "the stream is open")

        def steps():
            worker = psutil.Process(served.endpoint("words")["workers"][0])
            before = worker.cpu_times().user
            for _ in range(10):
                httpx2.post(f"{served.http}/v2/models/words/generate", json={"text_input": "of the", "max_words": 2})
            return worker.cpu_times().user - before

        served.until(lambda: steps() < 0.02, "the generator is left waiting")
        assert opened(served) == 1


def test_a_conversation_over_websocket(served):
    async def talk():
        url = served.http.replace("http", "ws") + "/v2/models/words/ws"
        async with websockets.connect(url) as talking:
            tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": ["of the"]}
            await talking.send(json.dumps({"id": "1", "inputs": [tensor]}))
            got = []
            while not got or got[-1]["outputs"]:
                got.append(json.loads(await talking.recv()))
            await talking.ping()
        return got, talking.close_code

    got, code = asyncio.run(talk())
    assert (len(got), code) == (21, 1000)
    assert {each["id"] for each in got} == {"1"}


def test_a_worker_that_is_killed_ends_the_stream_with_why(served):
    with streamed(served, ENDLESS) as response:
        events = data_of(response.iter_lines())
        next(events)
        os.kill(served.endpoint("words")["workers"][0], signal.SIGKILL)
        *_, last = events
    assert last["code"] == "WORKER_LOST"
    served.until(lambda: served.endpoint("words").get("available"), "the next worker serves")


def test_a_stream_ends_on_the_version_that_it_began_on(served):
    with streamed(served, ENDLESS | {"max_words": 3000}) as response:
        events = data_of(response.iter_lines())
        next(events)
        generation = served.deploy("words")["generation"]
        served.wait_serving("words", "words@1.0.0", generation)
        # The new one answers, and the old one lives for the stream.
        assert httpx2.post(f"{served.http}/v2/models/words/generate", json={"text_input": "of the"}).status_code == 200
        rest = list(events)
    assert "error" not in rest[-1]
    served.until(lambda: len(served.events("unloaded")) == 1, "then it is freed")
