from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest


class Outcome(NamedTuple):
    """What became of one request.

    `sent` is whether all of it had been written, `fresh` whether its connection was new: then a
    reset may mean that the connection had never been accepted.
    """

    value: float
    sent: bool
    fresh: bool
    status: int = 0
    version: str = ""
    answer: float = 0.0
    problem: str = ""


class Load:
    """Clients that ask without pause, each on one connection, and keep a ledger."""

    def __init__(self, url: str, path: str, rows: Callable[..., Any], clients: int) -> None:
        self._place = urlsplit(url)
        self._path = path
        self._rows = rows
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self.ledger: list[Outcome] = []
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        connection = http.client.HTTPConnection(self._place.hostname, self._place.port, timeout=30)
        with contextlib.closing(connection):
            while not self._stop.is_set():
                outcome = self._ask(connection, float(next(self._numbers) % 500))
                self.ledger.append(outcome)
                if outcome.problem:
                    connection.close()
                    self._stop.wait(0.02)

    def _ask(self, connection: http.client.HTTPConnection, value: float) -> Outcome:
        sent, fresh = False, connection.sock is None
        try:
            connection.request("POST", self._path, json.dumps(self._rows([value, value])))
            sent = True
            answer = connection.getresponse()
            document = json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            return Outcome(value, sent, fresh, problem=type(error).__name__)
        if answer.status != 200:
            return Outcome(value, sent, fresh, answer.status, problem=str(answer.getheader("x-salver-error")))
        return Outcome(value, sent, fresh, 200, document["model_version"], document["outputs"][0]["data"][0])

    def end(self) -> list[Outcome]:
        """Stop the clients and return the whole ledger."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=40)
            assert not thread.is_alive()
        return self.ledger


@pytest.fixture
def load() -> Iterator[Callable[..., Load]]:
    """Start clients of a tree's endpoint; what a failed test left running is stopped."""
    started: list[Load] = []

    def start(tree: Any, endpoint: str, clients: int = 3) -> Load:
        started.append(Load(tree.http, f"/v2/models/{endpoint}/infer", tree.rows, clients))
        return started[-1]

    yield start
    for each in started:
        each.end()
