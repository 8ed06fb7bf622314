"""Owners: a process is alive as long as it is that process, whoever has its number now."""

import os
import signal
import subprocess
import sys

from salver.storage.owners import boot_id, lives, this_process


def test_this_process_lives():
    assert lives(this_process())


def test_another_process_with_its_number_is_another():
    pid, _, started = this_process().partition(".")
    assert not lives(f"{pid}.{int(started) + 1}")


def test_the_dead_do_not_live_even_while_nobody_has_waited_for_them():
    child = subprocess.Popen(
        [sys.executable, "-c", "from salver.storage.owners import *; print(this_process(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    owner = child.stdout.readline().strip()
    assert lives(owner)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not lives(owner)
    child.wait()
    assert not lives(owner)
    child.stdin.close()
    child.stdout.close()


def test_what_names_no_process_does_not_live():
    assert not any(map(lives, ("", "me", "1", "x.y", "-1.5", "1.", ".1")))


def test_a_boot_has_one_name():
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
