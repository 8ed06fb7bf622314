from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.runtime.hosting import Shelf

from salver.protocol.tables import FileEntry, VersionManifest
from salver.runtime import host as host_module
from salver.runtime.environment import _allowed, allow_users_code
from salver.runtime.pool import Pool
from salver.storage.blobs import BlobStore
from salver.telemetry.metrics import VersionMetrics
from salver.testing import ManualClock, make_manifest, make_spec


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on the event loop the server uses, where no callback may raise."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    faults: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
        runner.run(pyfuncitem.obj(**arguments))
    assert faults == [], "a callback of the event loop raised"
    return True


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def metrics() -> VersionMetrics:
    return VersionMetrics()


@pytest.fixture
def users_code() -> Iterator[None]:
    """This process is as good as a worker while the test runs."""
    allow_users_code()
    yield
    _allowed.clear()


MakePool = Callable[..., Pool]


@pytest.fixture
def make_pool(clock: ManualClock, metrics: VersionMetrics) -> MakePool:
    def make(manifest: VersionManifest | None = None, **spec: Any) -> Pool:
        return Pool(make_spec(**spec), manifest or make_manifest(), metrics, clock)

    return make


class Store:
    """Blobs and scratch space, and versions made from files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs_path = root / "blobs"
        self.blobs = BlobStore(self.blobs_path)
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self._count = 0

    def version(self, files: dict[str, bytes | str], **changes: Any) -> VersionManifest:
        """A version of these files; by default a Python class with the signature of `ComputableModel`."""
        self._count += 1
        directory = self.root / f"artifact-{self._count}"
        entries = []
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            blob = self.blobs.put_file(path)
            entries.append(FileEntry(name, blob.sha256, blob.size_bytes))
        digest = hashlib.sha256(repr(entries).encode()).hexdigest()
        fields = {"format": "python", "trusts_code": True, "files": tuple(entries), "digest": digest, **changes}
        return make_manifest(**fields)

    def python(self, body: str, **changes: Any) -> VersionManifest:
        """A version whose `predict` has this body; `x` is the input, and `here` its directory."""
        files = {"model.py": PYTHON.format(body=textwrap.indent(textwrap.dedent(body), " " * 8))}
        declared = [f"{name} = {json.dumps(changes[name])}\n" for name in ("idempotent", "warm_up") if name in changes]
        return self.version(files | ({"salver-model.toml": "".join(declared)} if declared else {}), **changes)


PYTHON = """
import os, sys, time, ctypes, signal, threading
import numpy as np
import salver

class Arithmetic(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, -1))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, -1))]

    def load(self, path):
        self.here = path

    def predict(self, inputs):
        x = inputs["x"]
        here = self.here
{body}
        return {{"y": 2 * x + 1}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def shelf(monkeypatch) -> Shelf:
    found = Shelf()
    monkeypatch.setattr(host_module, "load_version", found.load)
    return found
