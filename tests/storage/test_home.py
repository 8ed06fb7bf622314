from __future__ import annotations

import fcntl
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.storage.home import Holder, Home, Serving

HOLD = """
import sys
from salver.storage.home import Home
with Home.open(sys.argv[1]).lock("serve"):
    print("held", flush=True)
    sys.stdin.read()
print("released", flush=True)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_private(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "deep" / "home")
    assert mode(home.path) == 0o700
    assert mode(home.secrets_path) == 0o700
    assert mode(home.pepper_path) == 0o600
    assert len(home.pepper()) == 32


def test_a_home_keeps_its_pepper_when_it_is_opened_again_and_when_it_is_moved(tmp_path: Path) -> None:
    pepper = Home.open(tmp_path / "home").pepper()
    assert Home.open(tmp_path / "home").pepper() == pepper
    (tmp_path / "home").rename(tmp_path / "moved")
    assert Home.open(tmp_path / "moved").pepper() == pepper


def test_an_empty_directory_becomes_a_home_and_private(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "lost+found").mkdir()
    assert mode(Home.open(tmp_path / "home").path) == 0o700


def test_a_directory_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    with pytest.raises(SalverError, match="not empty and is no Salver home") as raised:
        Home.open(tmp_path / "thesis")
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert "--home" in raised.value.remedy
    assert str(tmp_path) not in str(raised.value)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SalverError, match="is not a directory") as raised:
            Home.open(path)
        assert raised.value.code == "INVALID_SETTING"


def test_a_home_of_a_newer_layout_is_refused(home: Home) -> None:
    (home.path / "salver-home.json").write_text('{"layout": 2}')
    with pytest.raises(SalverError, match=r"has layout 2; this Salver knows up to 1"):
        Home.open(home.path)


def test_a_damaged_marker_is_refused(home: Home) -> None:
    (home.path / "salver-home.json").write_text("{")
    with pytest.raises(SalverError, match=r"salver-home\.json in the data directory is damaged"):
        Home.open(home.path)


def test_a_home_that_was_half_made_is_completed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "salver-home.json").write_text('{"layout": 1}')
    assert len(Home.open(tmp_path / "home").pepper()) == 32
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".salver-home.json.abc.tmp").write_text("")
    assert len(Home.open(tmp_path / "other").pepper()) == 32


def test_a_database_whose_pepper_is_gone_is_refused_instead_of_silently_refusing_every_token(home: Home) -> None:
    home.database_path.write_bytes(b"")
    home.pepper_path.unlink()
    with pytest.raises(SalverError, match="no secrets/pepper") as raised:
        Home.open(home.path)
    assert raised.value.code == "REFUSED_BY_POLICY"


def test_a_pepper_of_another_size_is_refused(home: Home) -> None:
    home.pepper_path.write_bytes(b"short")
    with pytest.raises(SalverError, match="has 5 bytes; 32 are needed"):
        home.pepper()


def test_rights_that_a_restore_widened_are_taken_back(home: Home) -> None:
    home.pepper_path.chmod(0o644)
    home.secrets_path.chmod(0o755)
    Home.open(home.path)
    assert (mode(home.secrets_path), mode(home.pepper_path)) == (0o700, 0o600)


def test_racing_openers_agree_on_one_pepper(tmp_path: Path) -> None:
    for attempt in range(20):
        start = threading.Barrier(8)

        def race(_: int, start: threading.Barrier = start, path: Path = tmp_path / f"home{attempt}") -> bytes:
            start.wait()
            return Home.open(path).pepper()

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(race, range(8)))) == 1
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_second_holder_is_refused_and_told_who_holds_the_home(home: Home, python) -> None:
    child = python(HOLD, home.path)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(SalverError) as raised, home.lock("register"):
        pass
    assert raised.value.code == "CONFLICT"
    assert raised.value.message == f"the home is held by process {child.pid} (serve)"
    assert home.holder() == Holder(child.pid, "serve")
    assert child.communicate("")[0] == "released\n"
    assert home.holder() is None
    with home.lock("register"):
        assert home.holder() == Holder(os.getpid(), "register")


def test_the_lock_holds_within_one_process_too(home: Home) -> None:
    with home.lock("first"), pytest.raises(SalverError, match=r"\(first\)"), home.lock("second"):
        pass
    with home.lock("third"):
        pass


def test_the_lock_is_freed_when_the_block_raises(home: Home) -> None:
    with pytest.raises(RuntimeError), home.lock("first"):
        raise RuntimeError
    assert home.holder() is None


def test_death_by_kill_9_releases_the_lock(home: Home, python) -> None:
    child = python(HOLD, home.path)
    assert child.stdout.readline() == "held\n"
    child.kill()
    child.wait()
    assert home.holder() is None
    with home.lock("register"):
        assert home.holder() == Holder(os.getpid(), "register")


def test_programs_that_the_holder_started_do_not_keep_the_lock(home: Home, python) -> None:
    program = """
import subprocess, sys
from salver.storage.home import Home
with Home.open(sys.argv[1]).lock("serve"):
    child = subprocess.Popen(["cat"], stdin=sys.stdin, stdout=subprocess.DEVNULL, close_fds=False)
    print(child.pid, flush=True)
    child.wait()
"""
    holder = python(program, home.path)
    grandchild = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    os.kill(grandchild, 0)  # still there
    with home.lock("register"):
        pass


def test_somebody_who_only_asks_who_holds_the_home_does_not_get_in_the_way(home: Home, monkeypatch) -> None:
    home.lock_path.touch()
    asking = os.open(home.lock_path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)  # as `holder` does for a moment
    monkeypatch.setattr(os, "sched_yield", lambda: os.close(asking))
    with home.lock("register"):
        assert home.holder() == Holder(os.getpid(), "register")


def test_a_holder_that_names_no_living_process_is_still_a_holder(home: Home) -> None:
    home.lock_path.write_text('{"pid": 999999999, "purpose": "elsewhere"}')
    holding = os.open(home.lock_path, os.O_RDONLY)
    fcntl.flock(holding, fcntl.LOCK_EX)
    with pytest.raises(SalverError, match=r"held by process 999999999 \(elsewhere\)"), home.lock("register"):
        pass
    home.lock_path.write_text("")
    with pytest.raises(SalverError, match="held by another process"), home.lock("register"):
        pass
    os.close(holding)


def test_a_record_of_who_serves_counts_only_while_that_process_holds_the_lock(home: Home) -> None:
    serving = Serving(os.getpid(), "http://127.0.0.1:8080", "http://127.0.0.1:8090")
    with home.lock("serve"):
        assert home.read_serving() is None
        home.write_serving(serving)
        assert home.read_serving() == serving
    assert home.read_serving() is None
    home.clear_serving()
    home.clear_serving()
    assert not home.serving_path.exists()


def test_a_home_shows_its_place(home: Home) -> None:
    assert repr(home) == f"<Home {home.path}>"
