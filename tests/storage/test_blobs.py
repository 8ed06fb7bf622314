from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.storage import blob_reader
from salver.storage import blobs as blobs_module
from salver.storage.blobs import Blob, BlobStore

HALF = """
import os, sys
from pathlib import Path
from salver.storage import blobs
def write_half(descriptor, data):
    os.write(descriptor, data[: len(data) // 2])
    print("half", flush=True)
    sys.stdin.read()
blobs.write_all = write_half
blobs.BlobStore(Path(sys.argv[1])).put_file(Path(sys.argv[2]))
"""
PUT_MANY = """
import sys
from pathlib import Path
from salver.storage.blobs import BlobStore
store, source, n = BlobStore(Path(sys.argv[1])), Path(sys.argv[2]), 0
while True:
    n += 1
    source.write_bytes(f"{n}".encode() * 5000)
    print(store.put_file(source).sha256, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def put(store: BlobStore, tmp_path: Path, data: bytes) -> Blob:
    source = tmp_path / "source"
    source.write_bytes(data)
    return store.put_file(source)


def blob_path(tmp_path: Path, blob: Blob) -> Path:
    return tmp_path / "blobs" / blob.sha256


def corrupt(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("data", [b"", b"abc", b"x" * 3_000_000])
def test_a_blob_comes_back_under_the_sha256_of_its_bytes(store: BlobStore, tmp_path: Path, data: bytes) -> None:
    blob = put(store, tmp_path, data)
    assert blob == Blob(hashlib.sha256(data).hexdigest(), len(data))
    assert store.size_bytes(blob.sha256) == len(data)
    assert store.read_verified(blob.sha256) == data
    store.verify(blob.sha256)
    assert store.copy_verified(blob.sha256, tmp_path / "copy") == len(data)
    assert (tmp_path / "copy").read_bytes() == data


def test_a_blob_is_read_only(store: BlobStore, tmp_path: Path) -> None:
    assert stat.S_IMODE(blob_path(tmp_path, put(store, tmp_path, b"abc")).stat().st_mode) == 0o444


def test_the_same_bytes_twice_take_no_more_disk(store: BlobStore, tmp_path: Path) -> None:
    put(store, tmp_path, b"x" * 100_000)
    assert store.usage_bytes() == 100_000
    put(store, tmp_path, b"x" * 100_000)
    assert store.usage_bytes() == 100_000
    put(store, tmp_path, b"y" * 50_000)
    assert store.usage_bytes() == 150_000


def test_an_absent_store_uses_nothing(tmp_path: Path) -> None:
    assert BlobStore(tmp_path / "none").usage_bytes() == 0
    assert BlobStore(tmp_path / "none").discard_unfinished() == 0


def test_racing_puts_of_the_same_and_of_other_bytes_all_succeed(store: BlobStore, tmp_path: Path) -> None:
    sources = [tmp_path / f"source{n}" for n in range(4)]
    for n, source in enumerate(sources):
        source.write_bytes(bytes([n // 2]) * 300_000)
    start = threading.Barrier(8)

    def race(n: int) -> Blob:
        start.wait()
        return store.put_file(sources[n % 4])

    with ThreadPoolExecutor(8) as threads:
        stored = set(threads.map(race, range(8)))
    assert len(stored) == 2
    assert store.usage_bytes() == 600_000
    for blob in stored:
        store.verify(blob.sha256)


def test_links_pipes_devices_and_directories_are_refused_at_once(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "link", tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "absent"):
        with pytest.raises(SalverError) as raised:
            store.put_file(path)
        assert raised.value.code == "INVALID_ARTIFACT"
        assert path.name in raised.value.message
        assert str(tmp_path) + "/" not in str(raised.value)
    assert store.usage_bytes() == 0


@pytest.mark.parametrize("how", ["flip", "cut", "grow"])
def test_a_corrupt_blob_is_never_handed_out(store: BlobStore, tmp_path: Path, how: str) -> None:
    blob = put(store, tmp_path, b"0123456789" * 1000)
    path = blob_path(tmp_path, blob)
    path.chmod(0o644)
    {
        "flip": lambda: corrupt(path),
        "cut": lambda: os.truncate(path, 5000),
        "grow": lambda: path.write_bytes(path.read_bytes() + b"!"),
    }[how]()
    for use in (
        store.read_verified,
        store.verify,
        lambda sha256: store.copy_verified(sha256, tmp_path / "copy"),
    ):
        with pytest.raises(SalverError, match=blob.sha256) as raised:
            use(blob.sha256)
        assert raised.value.code == "CORRUPT_ARTIFACT"
        assert raised.value.remedy
        assert str(tmp_path) not in str(raised.value)
    assert not (tmp_path / "copy").exists()


def test_putting_the_same_bytes_again_heals_a_corrupt_blob(store: BlobStore, tmp_path: Path) -> None:
    blob = put(store, tmp_path, b"0123456789")
    corrupt(blob_path(tmp_path, blob))
    assert put(store, tmp_path, b"0123456789") == blob
    assert store.read_verified(blob.sha256) == b"0123456789"


def test_a_missing_blob_is_a_corrupt_artifact(store: BlobStore, tmp_path: Path) -> None:
    absent = "0" * 64
    assert store.size_bytes(absent) is None
    for use in (store.read_verified, store.verify, lambda name: store.copy_verified(name, tmp_path / "c")):
        with pytest.raises(SalverError, match="is missing from the store") as raised:
            use(absent)
        assert raised.value.code == "CORRUPT_ARTIFACT"
        assert "register the same file again" in raised.value.remedy
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "incoming", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_are_names(store: BlobStore, name: str) -> None:
    with pytest.raises(SalverError, match="is not a SHA-256 digest"):
        store.verify(name)


def test_a_blob_that_was_replaced_by_a_link_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    blob = put(store, tmp_path, b"abc")
    blob_path(tmp_path, blob).unlink()
    blob_path(tmp_path, blob).symlink_to(tmp_path / "source")
    with pytest.raises(SalverError, match="cannot be read"):
        store.read_verified(blob.sha256)


def test_a_copy_never_overwrites(store: BlobStore, tmp_path: Path) -> None:
    blob = put(store, tmp_path, b"abc")
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        store.copy_verified(blob.sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"mine"


def test_a_full_disk_leaves_nothing_behind(store: BlobStore, tmp_path: Path, monkeypatch) -> None:
    kept = put(store, tmp_path, b"kept")

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in (blobs_module, blob_reader):
        monkeypatch.setattr(module, "write_all", full)
    with pytest.raises(SalverError) as raised:
        put(store, tmp_path, b"x" * 100_000)
    assert raised.value.code == "STORAGE_FULL"
    with pytest.raises(SalverError) as raised:
        store.copy_verified(kept.sha256, tmp_path / "copy")
    assert raised.value.code == "STORAGE_FULL"
    assert not (tmp_path / "copy").exists()
    assert store.usage_bytes() == 4


def test_a_writer_killed_in_the_middle_leaves_no_blob_and_its_remains_can_be_discarded(
    store: BlobStore, tmp_path: Path, python
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100_000)
    child = python(HALF, tmp_path / "blobs", source)
    assert child.stdout.readline() == "half\n"
    assert store.discard_unfinished() == 0  # it is being written
    child.kill()
    child.wait()
    assert store.size_bytes(hashlib.sha256(source.read_bytes()).hexdigest()) is None
    assert store.usage_bytes() == 50_000
    assert store.discard_unfinished() == 1
    assert store.usage_bytes() == 0
    store.verify(store.put_file(source).sha256)


def test_discarding_takes_nothing_from_those_who_write_at_the_same_time(store: BlobStore, tmp_path: Path) -> None:
    done = threading.Event()

    def discard() -> int:
        found = 0
        while not done.is_set():
            found += store.discard_unfinished()
        return found

    def write(writer: int) -> list[Blob]:
        source = tmp_path / f"source{writer}"
        written = []
        for turn in range(40):
            source.write_bytes(f"{writer}.{turn}".encode() * 1000)
            written.append(store.put_file(source))
        return written

    with ThreadPoolExecutor(4) as threads:
        discarding = threads.submit(discard)
        try:
            written = [blob for blobs in threads.map(write, range(3)) for blob in blobs]
        finally:
            done.set()
    assert len(written) == 120
    for blob in written:
        store.verify(blob.sha256)
    # Only what had just been made and was not locked yet: its writer took another.
    assert discarding.result() < 120
    assert not list((tmp_path / "blobs" / "incoming").iterdir())


def test_a_file_taken_for_a_remnant_before_it_was_locked_is_replaced_by_another(
    store: BlobStore, tmp_path: Path, monkeypatch
) -> None:
    made: list[str] = []
    real = tempfile.mkstemp

    def made_and_found(**given: Path) -> tuple[int, str]:
        descriptor, name = real(**given)
        made.append(name)
        if len(made) == 1:
            assert store.discard_unfinished() == 1
        return descriptor, name

    monkeypatch.setattr(tempfile, "mkstemp", made_and_found)
    blob = put(store, tmp_path, b"abc")
    assert len(made) == 2
    store.verify(blob.sha256)


def test_blobs_acknowledged_before_kill_9_are_there(store: BlobStore, tmp_path: Path, python) -> None:
    child = python(PUT_MANY, tmp_path / "blobs", tmp_path / "source")
    acknowledged = [child.stdout.readline().strip() for _ in range(20)]
    child.kill()
    child.wait()
    for sha256 in acknowledged:
        store.verify(sha256)
