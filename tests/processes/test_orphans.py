"""In processes of their own: whoever adopts orphans adopts those of everybody below it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import psutil

SLEEP_S = f"4{os.getpid():07}"
"""Which of all that sleep on this machine are of this test."""
ADOPT = """
import contextlib, os, subprocess, sys
from pathlib import Path
from salver.clock import SYSTEM_CLOCK
from salver.processes.orphans import Orphans

quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
own = subprocess.Popen(["sleep", "SLEEP_S.0"], start_new_session=True, **quiet)
orphans = Orphans(lambda: {own.pid}, SYSTEM_CLOCK)
def leave(words):
    "The pid of a process whose parent has ended."
    started = subprocess.run(["sh", "-c", words + " >/dev/null 2>&1 & echo $!"], capture_output=True, check=True)
    return int(started.stdout)
"""


def run(program: str) -> str:
    program = (ADOPT + program).replace("SLEEP_S", SLEEP_S)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    try:
        assert done.returncode == 0, done.stderr
        return done.stdout
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if SLEEP_S in str(process.info["cmdline"]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def test_orphans_of_other_sessions_are_killed_and_all_that_ended_are_reaped() -> None:
    found = run("""
with orphans.adopted():
    foreign, beside = leave("exec setsid sleep SLEEP_S.1"), leave("exec sleep SLEEP_S.2")
    while os.getsid(foreign) == os.getsid(0):
        os.sched_yield()
    orphans.end_all()
    def there(pid):
        return os.path.exists(f"/proc/{pid}")
    print(there(foreign), there(beside), there(own.pid), own.poll())
    os.kill(beside, 9)
    while there(beside):
        orphans.end()
    own.kill()
    print(own.wait())
""")
    assert found.split() == ["False", "True", "True", "None", "-9"]


def test_those_that_the_dead_leave_behind_are_found_too() -> None:
    found = run("""
with orphans.adopted():
    parent = leave("exec setsid sh -c 'setsid sleep SLEEP_S.1 & wait'")
    def below():
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # others end at any time
                found += [path] * (path.read_bytes() == b"sleep\\x00SLEEP_S.1\\x00")
        return found
    while not below():
        os.sched_yield()
    orphans.end_all()
    print(len(below()), os.path.exists(f"/proc/{parent}"))
    own.kill(); own.wait()
""")
    assert found.split() == ["0", "False"]


def test_searches_are_rare_but_for_the_moments_after_a_death() -> None:
    found = run("""
searches = []
orphans.end = lambda: searches.append(now)
for now in [100 + turn / 4 for turn in range(24)]:
    orphans.look(now)
print(searches)
orphans.bereaved(106)
searches.clear()
for now in [106 + turn / 4 for turn in range(22)]:
    orphans.look(now)
print(len(searches))
own.kill(); own.wait()
""")
    assert found.splitlines() == ["[100.0, 105.0]", "20"]
