from __future__ import annotations

import asyncio
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.flows.house import House

from salver.cli import main
from salver.testing import ManualClock, ManualLoop


class BusyClock(ManualClock):
    """A clock by which computing takes what `busy_s` says, however quick it was."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_s = 0.0
        self._computed_s = 0.0

    def thread_s(self) -> float:
        """A processor that was `busy_s` longer with each reading."""
        self._computed_s += self.busy_s
        return self._computed_s


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on a loop whose time is its `clock`, where no callback may raise."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    clock = pyfuncitem.funcargs["clock"]
    faults: list[dict[str, Any]] = []

    async def run() -> None:
        house: House = arguments["house"]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ManualLoop)
        house.loop = loop
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            await house.close()

    with asyncio.Runner(loop_factory=lambda: ManualLoop(clock)) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
        runner.run(run())
    assert faults == [], "a callback of the event loop raised"
    return True


@pytest.fixture
def clock() -> BusyClock:
    return BusyClock()


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A home with `scale` in versions 1.0.0, 2.0.0 and 3.0.0, which multiply by 2, 3 and 4, and `loop`."""
    path = tmp_path_factory.mktemp("stocked") / "home"
    named = [("scale", f"times{factor}", f"{factor - 1}.0.0") for factor in (2, 3, 4)] + [("loop", "loop", "1.0.0")]
    for name, file, version in named:
        words = ["register", name, str(models / f"{file}.onnx"), "--version", version]
        assert main(["--json", "--home", str(path), *words]) == 0
    return path


@pytest.fixture
def house(stocked: Path, tmp_path: Path, clock: BusyClock) -> Iterator[House]:
    """A house on a copy of the stocked home; the test opens it."""
    shutil.copytree(stocked, tmp_path / "home")
    return House(tmp_path / "home", clock)
