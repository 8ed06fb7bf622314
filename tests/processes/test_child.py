from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.conftest import until

from salver.config import Settings
from salver.processes.child import Child, restart_pause_s
from salver.processes.order import Order, Report


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(str(tmp_path), str(tmp_path), Settings(), (), (), -1, -1, -1, os.getpid())


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Order):
    """A child whose module is a program of the test, in which `pipe` is its report pipe."""
    made: list[Child] = []

    def make(program: str) -> Child:
        beginning = "import json, os, sys; pipe = json.load(open(sys.argv[1]))['ready_fd']\n"
        name = f"program_{len(made)}"
        (tmp_path / f"{name}.py").write_text(beginning + program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", ""))
        made.append(Child(name, name))
        made[-1].start(order, (), now_s=100.0)
        return made[-1]

    yield make
    for each in made:
        each.kill()
        each.close()


def hear(each: Child) -> bool:
    """Take all that a child says until its pipe is over; whether it began its work."""
    began = False
    while each.pipe is not None:
        began |= each.hear()
    return began


def test_the_pause_before_a_restart_grows_with_deaths_that_follow_a_start_closely() -> None:
    assert [restart_pause_s(deaths) for deaths in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30]
    assert restart_pause_s(10_000) == 30


def test_a_child_that_lived_long_is_replaced_at_once_and_a_young_one_after_a_pause(child, order) -> None:
    each = child("")
    each.process.wait()
    assert each.bury(100.1) == 0.0
    each.start(order, (), now_s=100.1)
    each.process.wait()
    assert each.bury(100.2) == 0.5
    assert each.not_before_s == 100.7
    each.start(order, (), now_s=100.7)
    each.process.wait()
    assert each.bury(120.0) == 0.0
    assert each.failures == 3
    assert (each.process, each.pid, each.report) == (None, None, None)


def test_a_report_forgets_failures_and_death_forgets_the_report(child, order) -> None:
    each = child(r"""os.write(pipe, b'{"workers": [7]}\n')""")
    each.failures = 3
    assert hear(each)
    assert (each.failures, each.report) == (0, Report(workers=(7,)))
    each.process.wait()
    each.bury(100.1)
    assert (each.failures, each.report) == (1, None)
    each.start(order, (), now_s=100.2)
    assert each.report is None
    assert hear(each)


def test_a_report_of_any_length_is_heard_whole(child) -> None:
    failed = [{"endpoint": f"e{number}", "error": "x" * 1000} for number in range(300)]
    each = child(f"os.write(pipe, json.dumps({{'failed': {failed!r}}}).encode()); os.write(pipe, b'\\n')")
    assert hear(each)
    assert [dict(row) for row in each.report.failed] == failed


def test_two_children_that_report_at_once_are_told_apart(child) -> None:
    # In pieces far apart, so that on one pipe they would mix.
    program = r"""
import time
for piece in (b'{"workers"', b': [%d', b']}', b'\n'):
    os.write(pipe, piece)
    time.sleep(0.02)
"""
    both = [child(program.replace("%d", str(number))) for number in (1, 2)]
    while any(each.report is None for each in both):
        for each in both:
            each.hear()
    assert [each.report.workers for each in both] == [(1,), (2,)]


def test_half_a_report_of_a_killed_child_spoils_nothing_of_the_next_one(child, order, tmp_path) -> None:
    each = child("os.write(pipe, b'{\"workers\": [1'); os.kill(os.getpid(), 9)")
    assert not hear(each)
    each.process.wait()
    each.bury(100.1)
    program = tmp_path / "program_0.py"
    program.write_text(program.read_text().partition("os.write")[0] + r"""os.write(pipe, b'{"workers": [2]}\n')""")
    each.start(order, (), now_s=100.2)
    assert hear(each)
    assert each.report == Report(workers=(2,))


def test_nonsense_on_the_pipe_is_no_report(child) -> None:
    each = child("os.write(pipe, b'Hello\\n')")
    assert not hear(each)
    assert each.report is None


def test_a_child_holds_only_its_own_pipe(child) -> None:
    program = "import time; time.sleep(60)"
    first, second = child(program), child(program)
    second.kill()
    until(lambda: not second.hear() and second.pipe is None, "the pipe of the dead one is over", 5)
    assert first.lives


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
    each = child("import time; time.sleep(60)")
    assert os.getpgid(each.pid) != os.getpgid(0)
    assert each.lives
    each.kill()
    assert not each.lives
    assert each.process.returncode == -signal.SIGKILL
