"""Answers too large for the event loop: written beside it, once for what they share, and to nobody who has gone."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.gateway.servers import Served
from tests.gateway.wire import request

from salver.gateway import doorway, infer
from salver.gateway.doorway import WRITE_ASIDE_ELEMENTS, write_aside
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, Response


class Writer:
    """Notes where it was called."""

    def __init__(self) -> None:
        self.aside: list[bool] = []
        self.go_on = threading.Event()
        self.problem: Exception | None = None

    def __call__(self, request: Request, response: Response) -> int:
        self.aside.append(threading.current_thread() is not threading.main_thread())
        if self.aside[-1]:
            assert self.go_on.wait(10)
        if self.problem is not None:
            raise self.problem
        return response.start


def batch(rows: int, width: int) -> list[Response]:
    outputs = BatchOutputs({"y": np.zeros((rows, width), np.int8)}, rows)
    return [Response("m", "1.0.0", outputs, row, row + 1) for row in range(rows)]


def written(responses: list[Response], write: Writer, gone: tuple[int, ...] = ()) -> list[int]:
    """Whose answers were sent, in order."""
    sent: list[int] = []

    async def run() -> None:
        asked = [SimpleNamespace(answered=False) for _ in responses]
        for each, response in zip(asked, responses, strict=True):
            write_aside(each, Request("m", {}), response, write, sent.append)  # type: ignore[arg-type]
        for row in gone:
            asked[row].answered = True
        assert not sent
        write.go_on.set()
        async with asyncio.timeout(10):
            while len(sent) + len(gone) < len(responses):
                await asyncio.sleep(0)
            await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(run())
    return sent


def test_small_answers_of_a_large_batch_wait_for_the_first_and_follow_at_once() -> None:
    write = Writer()
    assert written(batch(8, WRITE_ASIDE_ELEMENTS // 8 + 1), write) == list(range(8))
    assert write.aside == [True] + [False] * 7


def test_large_answers_of_a_batch_are_written_aside_one_by_one() -> None:
    write = Writer()
    assert written(batch(3, WRITE_ASIDE_ELEMENTS + 1), write) == [0, 1, 2]
    assert write.aside == [True] * 3


def test_nothing_is_written_for_those_who_left_meanwhile() -> None:
    write = Writer()
    assert written(batch(4, WRITE_ASIDE_ELEMENTS), write, gone=(0, 2)) == [1, 3]
    assert len(write.aside) == 3


def test_what_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Exception] = []
    monkeypatch.setattr(doorway, "refuse_unwritten", lambda *arguments: refused.append(arguments[-1]))
    write = Writer()
    write.problem = SalverError("NONFINITE_OUTPUT", "no")
    write.go_on.set()

    async def run() -> None:
        for response in batch(2, WRITE_ASIDE_ELEMENTS):
            write_aside(SimpleNamespace(answered=False), Request("m", {}), response, write, pytest.fail)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while len(refused) < 2:
                await asyncio.sleep(0)

    asyncio.run(run())
    assert refused == [write.problem] * 2


# Through a door.


@pytest.mark.parametrize("path", ["/v2/models/toy/infer", "/v1/models/toy:predict"])
def test_answers_are_the_same_beside_the_loop(server: Served, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    rows = [[float(n), 1, 2, 0] for n in range(40)]
    tensor = {"name": "X", "datatype": "FP32", "shape": [40, 4], "data": rows}
    body = json.dumps({"inputs": [tensor]} if "v2" in path else {"instances": rows}).encode()
    plain = server.ask(request("POST", path, body))
    assert plain.status == 200
    threads: list[Any] = []
    offloaded = doorway.write_aside
    monkeypatch.setattr(doorway, "WRITE_ASIDE_ELEMENTS", 8)
    monkeypatch.setattr(infer, "_DECODE_ASIDE_BYTES", 8)
    monkeypatch.setattr(doorway, "write_aside", lambda *given: threads.append(given) or offloaded(*given))
    aside = server.ask(request("POST", path, body))
    assert (aside.status, aside.body) == (200, plain.body)
    assert len(threads) == 1


@pytest.mark.parametrize("body", [b'{"inputs":[]}', b"no JSON", b'{"inputs":[{"name":"X"}]}'])
def test_errors_are_the_same_beside_the_loop(server: Served, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    plain = server.ask(request("POST", "/v2/models/toy/infer", body))
    monkeypatch.setattr(infer, "_DECODE_ASIDE_BYTES", 4)
    aside = server.ask(request("POST", "/v2/models/toy/infer", body))
    assert plain.status == 400
    assert (aside.status, aside.body, aside.code) == (plain.status, plain.body, plain.code)
