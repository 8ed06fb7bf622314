from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from salver.runtime.recorder import FlightRecorder, read_recorder

A, B = "ab" * 32, "cd" * 32
CHILD = """
import sys
from pathlib import Path
from salver.runtime.recorder import FlightRecorder
recorder = FlightRecorder(Path(sys.argv[1]))
finished, computing, idle = (recorder.slot(digest * 32) for digest in ("0a", "0b", "0c"))
recorder.beat(12.5)
recorder.began(finished)
recorder.ended(finished)
recorder.began(computing)
print("computing", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_computed_can_be_read_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "computing\n"
        child.kill()
    assert read_recorder(path) == (12.5, {"0b" * 32})


def test_marks_come_and_go(tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "flight")
    a, b = recorder.slot(A), recorder.slot(B)
    recorder.began(a)
    recorder.began(b)
    assert read_recorder(tmp_path / "flight")[1] == {A, B}
    recorder.ended(a)
    assert read_recorder(tmp_path / "flight")[1] == {B}
    recorder.release(b)
    assert read_recorder(tmp_path / "flight")[1] == set()


def test_released_slots_are_used_again_and_what_has_none_is_not_recorded(tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "flight")
    slots = [recorder.slot(A) for _ in range(70)]
    extra = slots[-1]
    recorder.began(extra)
    assert read_recorder(tmp_path / "flight")[1] == set()
    for slot in slots:
        recorder.release(slot)
    again = [recorder.slot(B) for _ in range(64)]
    assert len(set(again)) == 64
    recorder.began(again[0])
    assert read_recorder(tmp_path / "flight")[1] == {B}


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 10_000])
def test_a_file_that_is_no_recording_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "flight").write_bytes(content)
    assert read_recorder(tmp_path / "flight") == (0.0, set())
