from __future__ import annotations

import fcntl
import os
import threading

import pytest

from salver.protocol.errors import SalverError
from salver.storage.home import Home
from salver.storage.isolation import Cause, FollowedIsolation, Isolation, end_isolation, isolate, read_isolated

_ISOLATE_MANY = """
import sys
from pathlib import Path
from salver.storage.home import Home
from salver.storage.isolation import Cause, isolate
home = Home.open(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    isolate(home, [f"{sys.argv[2]}-{number}"], Cause.CRASHED, 1.0)
"""


def test_what_is_isolated_is_kept_with_its_first_cause(home: Home) -> None:
    assert read_isolated(home) == {}
    isolate(home, ["a", "b"], Cause.CRASHED, 1.0)
    isolate(home, ["b", "c"], Cause.HUNG, 2.0)
    crashed, hung = Isolation(Cause.CRASHED, 1.0), Isolation(Cause.HUNG, 2.0)
    assert read_isolated(home) == {"a": crashed, "b": crashed, "c": hung}
    end_isolation(home, "b")
    end_isolation(home, "never")
    assert read_isolated(home) == {"a": crashed, "c": hung}


def test_several_processes_that_isolate_at_once_forget_nothing(home: Home, python) -> None:
    racing = [python(_ISOLATE_MANY, home.path, name) for name in "abc"]
    for each in racing:
        assert each.stdout.readline() == "ready\n"
    for each in racing:
        each.stdin.write("go\n")
        each.stdin.flush()
    assert [each.wait(30) for each in racing] == [0, 0, 0]
    assert set(read_isolated(home)) == {f"{name}-{number}" for name in "abc" for number in range(20)}


def test_nobody_else_waits_for_who_isolates_and_the_other_way_round(home: Home) -> None:
    """Whoever opens the database holds a lock on the directory, for seconds if it is busy."""
    directory = os.open(home.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        isolating = threading.Thread(target=isolate, args=(home, ["a"], Cause.HUNG, 1.0), daemon=True)
        isolating.start()
        isolating.join(10)
        assert not isolating.is_alive()
    finally:
        os.close(directory)
    assert set(read_isolated(home)) == {"a"}
    assert (home.path / "isolated.lock").stat().st_mode & 0o777 == 0o600


def test_a_link_in_place_of_the_lock_is_not_followed(home: Home, tmp_path) -> None:
    (home.path / "isolated.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        isolate(home, ["a"], Cause.HUNG, 1.0)
    assert not (tmp_path / "elsewhere").exists()


def test_who_follows_is_told_of_each_change_once(home: Home) -> None:
    followed = FollowedIsolation(home)
    assert followed.news() == set()
    assert followed.news() is None
    isolate(home, ["a"], Cause.HUNG, 1.0)
    assert followed.news() == {"a"}
    assert followed.news() is None
    end_isolation(home, "a")
    assert followed.news() == set()
    home.isolated_path.unlink()
    assert followed.news() == set()
    assert followed.news() is None


def test_a_damaged_file_is_reported_once_and_nothing_is_added_to_it(home: Home) -> None:
    followed = FollowedIsolation(home)
    home.isolated_path.write_bytes(b"nonsense")
    for act in (followed.news, lambda: isolate(home, ["a"], Cause.HUNG, 1.0), lambda: end_isolation(home, "a")):
        with pytest.raises(SalverError, match=r"isolated\.json in the data directory is damaged"):
            act()
    assert followed.news() is None
    assert home.isolated_path.read_bytes() == b"nonsense"
