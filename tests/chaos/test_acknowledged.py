"""What was acknowledged is there, whoever was killed meanwhile: `make test-chaos`.

Clients change a registry over HTTP without pause and write down each answer. At random moments the controller or the
supervisor is killed. Afterwards everything that was acknowledged must be there, once, in the registry, in the journal
and in the published tables, and of what was not acknowledged only what was being asked for.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.chaos.test_drills import children
from tests.checks.home_checks import kept, sound
from tests.conftest import Tree, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

KILLS = 12
POLICY = """
[[transition]]
to = "staging"
[[transition.gate]]
kind = "approvals"
"""


class Books:
    """Clients that change the registry, and what each was told."""

    def __init__(self, tree: Tree, model: bytes) -> None:
        self._tree, self._model = tree, model
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.acknowledged: dict[str, list[tuple[str, ...]]] = collections.defaultdict(list)
        self.asked: dict[str, set[tuple[str, ...]]] = collections.defaultdict(set)
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    @property
    def count(self) -> int:
        """Changes that were acknowledged; files that no version has yet are none."""
        return sum(len(told) for kind, told in self.acknowledged.items() if kind != "blob")

    def _work(self, worker: int) -> None:
        try:
            while not self._stopped.is_set():
                self._version(f"m{worker}")
        except BaseException as error:
            self.problems.append(repr(error))

    def _version(self, model: str) -> None:
        """One version: its file, its registration, a tag, a stage, an approval, another stage, a deployment."""
        number = next(self._numbers)
        data = (
            self._model + b"\xa2\x06" + bytes([len(str(number))]) + str(number).encode()
        )  # a field ONNX does not know
        digest = hashlib.sha256(data).hexdigest()
        version = f"1.0.{number}"
        if self._say("blob", (digest,), "PUT", f"/v1/blobs/{digest}", data) is None:
            return
        files = [{"path": "model.onnx", "sha256": digest, "size_bytes": len(data)}]
        asked = {"files": files, "version": version}
        if self._say("register", (model, version, digest), "POST", f"/v1/models/{model}/versions", asked) is None:
            return
        here = f"/v1/models/{model}/versions/{version}"
        self._say("tag", (model, version, str(number)), "PATCH", f"{here}/tags", {"tags": {"number": str(number)}})
        if (
            self._say("stage", (model, version, "validation"), "POST", f"{here}/stage", {"target": "validation"})
            is None
        ):
            return
        approved = {"target": "staging"}
        if self._say("approve", (model, version), "POST", f"{here}/approvals", approved, by="approver") is None:
            return
        if self._say("stage", (model, version, "staging"), "POST", f"{here}/stage", {"target": "staging"}) is None:
            return
        self._say("deploy", (model, version), "POST", "/v1/deployments", {"model": model, "version": version})

    def _say(
        self, kind: str, what: tuple[str, ...], method: str, path: str, body: Any, by: str = "admin"
    ) -> dict[str, Any] | None:
        """Ask once; None where there was no answer, or one that says no."""
        self.asked[kind].add(what)
        try:
            place = urlsplit(self._tree.ready["control"])
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
            with contextlib.closing(connection):
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                connection.request(method, path, content, {"Authorization": f"Bearer {self.tokens[by]}"})
                answer = connection.getresponse()
                told = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.outcomes[type(error).__name__] += 1
            self._stopped.wait(0.1)
            return None
        self.outcomes[str(answer.status)] += 1
        if answer.status == 429 and not self._stopped.wait(0.05):
            return self._say(kind, what, method, path, body, by)
        if answer.status != 200:
            if answer.status not in (429, 503):
                self.problems.append(f"{method} {path}: {answer.status} {told}")
            return None
        if kind == "stage" and not told["moved"]:
            self.problems.append(f"{what} was not moved: {told}")
            return None
        with self._lock:
            self.acknowledged[kind].append(what)
        return told

    tokens: dict[str, str] = {}  # noqa: RUF012 - set before the first thread


def killed(tree: Tree, whom: str) -> None:
    if whom == "controller":
        assert tree.process is not None
        for pid in children(tree.process.pid, "processes.controller"):
            os.kill(pid, signal.SIGKILL)
        return
    tree.signal(signal.SIGKILL)
    tree.wait()
    tree.until(tree.is_gone, "everything ended with its supervisor")
    tree.start()


def test_nothing_acknowledged_is_lost_whoever_is_killed(tree: Tree, models: Path, capsys) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "7"))
    moments = random.Random(seed)
    (tree.home.parent / "policy.toml").write_text(POLICY)
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("policy", "set", tree.home.parent / "policy.toml")
    Books.tokens = {
        "admin": tree.salver("token", "create", "ann", "--role", "admin")["token"],
        "approver": tree.salver("token", "create", "bea", "--role", "approver")["token"],
    }
    tree.start()
    books = Books(tree, (models / "times2.onnx").read_bytes())
    try:
        for turn in range(KILLS):
            goal = books.count + moments.randint(5, 15)
            until(lambda goal=goal: books.count >= goal or books.problems, "changes go on", 60)
            threading.Event().wait(moments.uniform(0.0, 0.05))
            killed(tree, "supervisor" if turn % 3 == 2 else "controller")
    finally:
        books.stop()
    assert books.problems == []
    assert tree.stop() == 0
    tree.until(tree.is_gone, "all have ended")
    _check(tree.home, books)
    with capsys.disabled():
        counts = {kind: len(told) for kind, told in books.acknowledged.items()}
        print(f"\n{KILLS} kills (seed {seed}): acknowledged {counts}, answers {dict(books.outcomes)}, nothing lost")


def _check(home: Path, books: Books) -> None:
    sound(home)
    now = kept(home)
    told = books.acknowledged
    for model, version, _ in told["register"]:
        assert f"{model}@{version}" in now["versions"]
    asked = {f"{model}@{version}" for model, version, _ in books.asked["register"]} | {"double@1.0.0"}
    assert set(now["versions"]) <= asked
    furthest = {(model, version): target for model, version, target in told["stage"]}
    for (model, version), target in furthest.items():
        reached = now["stages"][f"{model}@{version}"]
        unheard = (model, version, "staging") in books.asked["stage"]
        assert reached == target or (unheard and reached == "staging")
    actions = collections.Counter((action, subject) for _, action, subject in now["journal"])
    for kind, action in (("register", "register"), ("approve", "approve"), ("stage", "promote"), ("tag", "tag")):
        for (model, version), times in collections.Counter(each[:2] for each in told[kind]).items():
            assert actions[action, f"{model}@{version}"] >= times, (action, model, version)
    for (action, subject), times in actions.items():
        if action == "register":
            assert times == 1, subject
    deploys = [subject for _, action, subject in now["journal"] if action == "deploy"]
    assert len(deploys) >= len(told["deploy"])
    for model, (_, version) in now["deployed"].items():
        assert (model, version) in books.asked["deploy"]
