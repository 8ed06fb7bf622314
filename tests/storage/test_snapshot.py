from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.storage.owners import this_process
from salver.storage.snapshot import (
    create_once,
    discard_temporaries,
    read_json,
    write_all,
    write_atomically,
    write_json,
)

COUNT = """
import sys
from pathlib import Path
from salver.storage.snapshot import write_atomically
n = 0
while True:
    n += 1
    write_atomically(Path(sys.argv[1]), (f"{n}\\n" * 2000).encode())
    print(n, flush=True)
"""
FILL = """
import resource, sys
from pathlib import Path
from salver.protocol.errors import SalverError
from salver.storage.snapshot import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(Path(sys.argv[1]), b"x" * 10_000)
except SalverError as error:
    print(error.code)
"""


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


class Point(msgspec.Struct, frozen=True):
    x: int


def test_a_written_file_has_its_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_atomically(path, b"two", 0o644)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o644)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, code: int) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    for write in (write_atomically, create_once):
        with pytest.raises(SalverError, match="no space is left") as raised:
            write(path, b"new")
        assert raised.value.code == "STORAGE_FULL"
        assert raised.value.remedy
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_real_size_limit_is_a_full_disk_too(tmp_path: Path, python) -> None:
    (tmp_path / "file").write_bytes(b"old")
    assert python(FILL, tmp_path / "file").communicate()[0] == "STORAGE_FULL\n"
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", b"x")


def test_every_byte_is_written_when_the_system_takes_only_parts() -> None:
    read, write = os.pipe()
    os.set_blocking(read, True)
    data = os.urandom(1_000_000)  # more than a pipe holds
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(read, 65_536):
            received.extend(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    write_all(write, data)
    os.close(write)
    thread.join()
    os.close(read)
    assert received == data


def test_a_writer_killed_at_any_moment_leaves_a_whole_file_no_older_than_acknowledged(tmp_path: Path, python) -> None:
    path = tmp_path / "file"
    child = python(COUNT, path)
    acknowledged = [int(child.stdout.readline()) for _ in range(20)][-1]
    child.kill()
    child.wait()
    lines = path.read_text().splitlines()
    assert len(lines) == 2000
    assert len(set(lines)) == 1
    assert int(lines[0]) >= acknowledged


def test_of_racing_creators_exactly_one_creates(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        return create_once(tmp_path / "file", bytes([number]) * 100)

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(race, range(8)))
    assert sum(created) == 1
    assert (tmp_path / "file").read_bytes() == bytes([created.index(True)]) * 100
    assert names(tmp_path) == ["file"]


def test_json_comes_back_and_an_absent_file_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "point.json", Point) is None
    write_json(tmp_path / "point.json", Point(3))
    assert read_json(tmp_path / "point.json", Point) == Point(3)


@pytest.mark.parametrize("content", [b"", b"{", b'{"x": "3"}', b'{"y": 3}', b"\xff\x00", b'{"x": 3} more'])
def test_damaged_json_is_named_without_its_directory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "point.json").write_bytes(content)
    with pytest.raises(SalverError, match=r"point\.json in the data directory is damaged") as raised:
        read_json(tmp_path / "point.json", Point)
    assert raised.value.code == "CORRUPT_ARTIFACT"
    assert str(tmp_path) not in str(raised.value)


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from salver.storage import snapshot\n"
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        "snapshot.write_atomically(pathlib.Path(sys.argv[1]), b'half')\n"
    )
    for name in ("tables.json", "pepper"):
        assert subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=False).returncode == -9
    (left, _) = sorted(path.name for path in tmp_path.iterdir())
    assert left.startswith(".pepper.")
    (tmp_path / f".tables.json.{this_process()}.abc.tmp").write_bytes(b"of one who lives")
    (tmp_path / ".others.tmp").write_bytes(b"of nobody known")
    assert discard_temporaries(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".others.tmp",
        f".tables.json.{this_process()}.abc.tmp",
    ]
    assert discard_temporaries(tmp_path / "nothing") == 0
