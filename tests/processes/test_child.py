from __future__ import annotations

import signal
from pathlib import Path

import pytest

from salver.processes.child import Child, restart_pause_s
from salver.processes.order import Report


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A child whose module is a program of the test."""
    made: list[Child] = []

    def make(program: str) -> Child:
        (tmp_path / "program.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        made.append(Child("server", "program"))
        made[-1].start(Path("order"), (), now_s=100.0)
        return made[-1]

    yield make
    for each in made:
        each.kill()


def test_the_pause_before_a_restart_grows_with_deaths_that_follow_a_start_closely() -> None:
    assert [restart_pause_s(deaths) for deaths in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30]
    assert restart_pause_s(10_000) == 30


def test_a_child_that_lived_long_is_replaced_at_once_and_a_young_one_after_a_pause(child) -> None:
    each = child("")
    each.process.wait()
    assert each.bury(100.1) == 0.0
    each.start(Path("order"), (), now_s=100.1)
    each.process.wait()
    assert each.bury(100.2) == 0.5
    assert each.not_before_s == 100.7
    each.start(Path("order"), (), now_s=100.7)
    each.process.wait()
    assert each.bury(120.0) == 0.0
    assert each.failures == 3
    assert (each.process, each.pid, each.report) == (None, None, None)


def test_readiness_forgets_failures_and_death_forgets_readiness(child) -> None:
    each = child("")
    each.process.wait()
    each.bury(100.1)
    each.ready(Report("server", ready=True))
    assert (each.failures, each.report) == (0, Report("server", ready=True))
    each.start(Path("order"), (), now_s=100.2)
    assert each.report is None


@pytest.mark.parametrize(
    ("program", "well"),
    [
        ("", True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", False),
        ("raise SystemExit(3)", False),
    ],
)
def test_a_child_ended_well_by_itself_or_of_the_signal_that_told_it_to(child, program, well) -> None:
    each = child(program)
    each.process.wait()
    assert each.ended_well is well


def test_ctrl_c_at_the_terminal_does_not_reach_a_child(child) -> None:
    import os

    each = child("import time; time.sleep(60)")
    assert os.getpgid(each.pid) != os.getpgid(0)
    assert each.lives
    each.kill()
    assert not each.lives
    assert each.process.returncode == -signal.SIGKILL
