from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error document; of a server it comes behind the log."""
        return json.loads(self.err.splitlines()[-1])["error"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of this test's commands."""
    monkeypatch.setenv("SALVER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SALVER_TOKEN", raising=False)
    return tmp_path / "home"


@pytest.fixture
def made(home: Path) -> Path:
    """That home, where it is there already."""
    from salver.storage.home import Home

    return Home.open(home).path


@pytest.fixture
def salver(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run a command in this process."""
    from salver.cli import main

    def run(*arguments: object, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return run
