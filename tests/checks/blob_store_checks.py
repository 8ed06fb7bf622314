"""What every artifact store must do, checked over all of them: add a store, add it to `STORES`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.s3 import BUCKET, S3Service, s3, s3_service

from salver.protocol.errors import SalverError
from salver.storage.blob_keys import HomeKeys, LocalKey
from salver.storage.blob_store import Blob, Blobs, Kind
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.remote_blobs import RemoteBlobs
from salver.storage.s3_bucket import S3Bucket
from salver.storage.settings import S3Settings
from salver.storage.sweeping import collectable

__all__ = ["s3", "s3_service"]

KEY, OTHER = os.urandom(32), os.urandom(32)
KINDS = ("plain", "encrypted")
STORES = ("directory", "s3")
SIZES = (0, 1, 3_000_000, 9_000_000)


@dataclass
class Bench:
    """A store under test, and ways to be nasty to it."""

    name: str
    kind: str
    path: Path
    s3: S3Service | None = None

    def open(self, *, encrypts: bool | None = None, cache: str = "cache") -> Blobs:
        """The same store once more, as another process has it."""
        encrypts = self.kind == "encrypted" if encrypts is None else encrypts
        keys = HomeKeys("env:SALVER_TEST_KEY" if encrypts else "", "" if encrypts else "env:SALVER_TEST_KEY")
        if self.name == "directory":
            return BlobStore(self.path / "blobs", keys)
        assert self.s3 is not None
        settings = S3Settings(endpoint=self.s3.url, allow_http=True, timeout_s=10, retries=1)
        bucket = S3Bucket(f"s3://{BUCKET}/some/where", settings)
        return RemoteBlobs(bucket, BlobStore(self.path / cache, keys), keys, 1 << 30)

    def source(self, data: bytes) -> Path:
        path = self.path / f"source-{threading.get_ident()}"
        path.write_bytes(data)
        return path

    def put(self, data: bytes, store: Blobs | None = None) -> Blob:
        return (store or self.open()).put_file(self.source(data))

    def change(self, name: str, how: Callable[[bytes], bytes]) -> None:
        """Change a file in the store behind its back."""
        if self.s3 is not None:
            path = f"/{BUCKET}/some/where/{name}"
            data = self.s3.ask("GET", path)[1]
            answer = self.s3.ask("PUT", path, how(data))
            assert answer[0] == 200, answer
        else:
            path = self.path / "blobs" / name
            path.chmod(0o644)
            path.write_bytes(how(path.read_bytes()))

    def delete(self, name: str) -> None:
        if self.s3 is not None:
            self.s3.ask("DELETE", f"/{BUCKET}/some/where/{name}")
        else:
            (self.path / "blobs" / name).unlink()

    def stored(self, kind: Kind | None = None) -> list[str]:
        items = self.open().items()
        return sorted(item.name for item in items if item.kind is not Kind.PIN and kind in (None, item.kind))


@pytest.fixture(params=[f"{store}-{kind}" for store in STORES for kind in KINDS])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("SALVER_TEST_KEY", KEY.hex())
    store, kind = request.param.split("-")
    service = request.getfixturevalue("s3") if store == "s3" else None
    return Bench(store, kind, tmp_path, service)


def now_s(store: Blobs) -> float:
    return max(item.modified_s for item in store.items())


def refuses(code: str, use: Callable[[], object]) -> SalverError:
    with pytest.raises(SalverError) as raised:
        use()
    assert raised.value.code == code, raised.value
    assert raised.value.remedy
    return raised.value


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_comes_back_under_the_sha256_of_its_bytes(bench: Bench, size: int) -> None:
    data = os.urandom(size)
    blob = bench.put(data)
    assert blob == Blob(hashlib.sha256(data).hexdigest(), size)
    for store in (bench.open(), bench.open(cache="another")):
        assert store.size_bytes(blob.sha256) == size
        assert store.read_verified(blob.sha256) == data
        assert store.copy_verified(blob.sha256, bench.path / "copy") == size
        assert (bench.path / "copy").read_bytes() == data
        (bench.path / "copy").unlink()
        store.verify(blob.sha256)


def test_encrypted_or_plain_is_what_was_asked_for(bench: Bench) -> None:
    secret = b"very secret weights " * 1000
    blob = bench.put(secret)
    suffix = Kind.ENCRYPTED if bench.kind == "encrypted" else Kind.PLAIN
    assert blob.sha256 + suffix in bench.stored()
    assert len(bench.stored(Kind.KEY)) == (bench.kind == "encrypted")
    for path in bench.path.rglob("*"):
        if path.is_file() and not path.name.startswith("source"):
            is_plain = bench.kind == "plain" and path.name == blob.sha256
            assert (b"very secret" in path.read_bytes()) == is_plain
    if bench.s3 is not None:
        there = bench.s3.ask("GET", f"/{BUCKET}/some/where/{blob.sha256}{suffix}")[1]
        assert (b"very secret" in there) == (bench.kind == "plain")


def test_what_is_held_can_be_read_by_a_worker_with_the_data_keys_alone(bench: Bench) -> None:
    from salver.storage.blob_keys import GivenKeys
    from salver.storage.blob_reader import BlobReader

    one, other = bench.put(b"one" * 500_000), bench.put(b"other")
    store = bench.open(cache="another")
    with store.hold([one.sha256]):
        keys = store.data_keys([one.sha256])
        assert set(keys) == ({one.sha256} if bench.kind == "encrypted" else set())
        workers = BlobReader(store.root, GivenKeys(keys))
        assert workers.read_verified(one.sha256) == b"one" * 500_000
        if bench.kind == "encrypted":
            refuses("CORRUPT_ARTIFACT", lambda: workers.read_verified(other.sha256))


def test_the_same_bytes_twice_are_stored_once(bench: Bench) -> None:
    bench.put(b"x" * 100_000)
    before = bench.stored()
    bench.put(b"x" * 100_000)
    bench.put(b"x" * 100_000, bench.open(cache="another"))
    assert bench.stored() == before


def test_what_is_missing_is_a_corrupt_artifact(bench: Bench) -> None:
    store, absent = bench.open(), "0" * 64
    assert store.size_bytes(absent) is None
    for use in (store.read_verified, store.verify, lambda name: store.copy_verified(name, bench.path / "copy")):
        assert "is missing from the store" in refuses("CORRUPT_ARTIFACT", lambda use=use: use(absent)).message
    for name in ("", "../x", "0" * 63, "A" * 64):
        refuses("INVALID_ARTIFACT", lambda name=name: store.size_bytes(name))


@pytest.mark.parametrize("how", ["flip", "cut", "grow", "empty", "swap chunks", "another"])
def test_what_was_changed_in_the_store_is_never_handed_out(bench: Bench, how: str) -> None:
    blob, other = bench.put(os.urandom(2_500_000)), bench.put(os.urandom(2_500_000))
    suffix = ".enc" if bench.kind == "encrypted" else ""
    mib = 1 << 20

    def swap(data: bytes) -> bytes:
        start = 16 if suffix else 0
        return data[: start + mib] + data[start + mib * 2 :] + data[start + mib : start + mib * 2]

    if how == "another":
        theirs = {}
        bench.change(other.sha256 + suffix, lambda data: theirs.setdefault("data", data))
        bench.change(blob.sha256 + suffix, lambda _: theirs["data"])
    else:
        ways = {
            "flip": lambda data: data[:1_000_000] + bytes([data[1_000_000] ^ 1]) + data[1_000_001:],
            "cut": lambda data: data[: mib + (16 if suffix else 0)],
            "grow": lambda data: data + b"!",
            "empty": lambda _: b"",
            "swap chunks": swap,
        }
        bench.change(blob.sha256 + suffix, ways[how])
    store = bench.open(cache="another")
    for use in (store.verify, store.read_verified, lambda name: store.copy_verified(name, bench.path / "copy")):
        error = refuses("CORRUPT_ARTIFACT", lambda use=use: use(blob.sha256))
        assert blob.sha256 in error.message
        assert str(bench.path) not in str(error)
    assert not (bench.path / "copy").exists()
    store.verify(other.sha256)


def test_a_blob_with_its_key_under_another_name_does_not_decrypt(bench: Bench) -> None:
    if bench.kind == "plain":
        return
    blob, other = bench.put(b"a" * 1000), bench.put(b"b" * 1000)
    kept: dict[str, bytes] = {}
    for kind in (Kind.KEY, Kind.ENCRYPTED):
        (theirs,) = [name for name in bench.stored(kind) if name.startswith(other.sha256)]
        bench.change(theirs, lambda data, kind=kind: kept.setdefault(kind, data))
    (ours,) = [name for name in bench.stored(Kind.KEY) if name.startswith(blob.sha256)]
    bench.change(blob.sha256 + ".enc", lambda data: data[:16] + kept[Kind.ENCRYPTED][16:])
    bench.change(ours, lambda _: kept[Kind.KEY])
    refuses("CORRUPT_ARTIFACT", lambda: bench.open(cache="another").read_verified(blob.sha256))


def test_writers_of_the_same_and_of_other_bytes_do_not_disturb_each_other(bench: Bench) -> None:
    start, stores = threading.Barrier(6), [bench.open(cache=f"cache{n}") for n in range(6)]
    contents = [bytes([n // 3]) * 200_000 for n in range(6)]

    def race(n: int) -> Blob:
        path = bench.path / f"raced{n}"
        path.write_bytes(contents[n])
        start.wait()
        return stores[n].put_file(path)

    with ThreadPoolExecutor(6) as threads:
        blobs = list(threads.map(race, range(6)))
    assert len(set(blobs)) == 2
    fresh = bench.open(cache="fresh")
    for blob, content in zip(blobs, contents, strict=True):
        assert fresh.read_verified(blob.sha256) == content


def test_without_the_key_what_is_encrypted_is_refused_and_nothing_lost(bench: Bench, monkeypatch) -> None:
    blob = bench.put(b"x" * 5000)
    if bench.kind == "plain":
        monkeypatch.delenv("SALVER_TEST_KEY")
        assert bench.open(cache="another").read_verified(blob.sha256) == b"x" * 5000
        return
    before = bench.stored()
    for value, said in (("", "is not set"), (OTHER.hex(), "is encrypted under the key"), ("short", "holds no key")):
        monkeypatch.setenv("SALVER_TEST_KEY", value)
        store = bench.open(cache="another")
        error = refuses("INVALID_SETTING", lambda store=store: store.read_verified(blob.sha256))
        assert said in error.message
        assert OTHER.hex() not in str(error)
    monkeypatch.setenv("SALVER_TEST_KEY", KEY.hex())
    assert bench.open(cache="another").read_verified(blob.sha256) == b"x" * 5000
    assert bench.stored() == before


def test_a_store_that_was_plain_is_encrypted_in_place_and_read_meanwhile(bench: Bench) -> None:
    plain = bench.open(encrypts=False)
    contents = [bytes([n]) * 100_000 for n in range(3)]
    blobs = [bench.put(content, plain) for content in contents]
    store = bench.open(encrypts=True, cache="another")
    for n, blob in enumerate(blobs):
        assert store.encrypt(blob.sha256)
        assert not store.encrypt(blob.sha256)
        assert len(bench.stored(Kind.ENCRYPTED)) == n + 1
        for other, content in zip(blobs, contents, strict=True):
            assert bench.open(encrypts=True, cache="third").read_verified(other.sha256) == content
    assert bench.stored(Kind.PLAIN) == []


def test_data_keys_are_wrapped_anew_without_touching_the_blobs(bench: Bench, monkeypatch) -> None:
    if bench.kind == "plain":
        return
    blobs = [bench.put(bytes([n]) * 1000) for n in range(2)]
    store = bench.open()
    sizes = {item.name: item.modified_s for item in store.items() if item.kind is Kind.ENCRYPTED}
    keys = [item for item in store.items() if item.kind is Kind.KEY]
    assert [store.rewrap(item, LocalKey(KEY), LocalKey(OTHER)) for item in keys] == [True, True]
    assert [store.rewrap(item, LocalKey(KEY), LocalKey(OTHER)) for item in keys] == [False, False]
    refuses("INVALID_SETTING", lambda: store.rewrap(keys[0], LocalKey(KEY), LocalKey(os.urandom(32))))
    assert {item.name: item.modified_s for item in store.items() if item.kind is Kind.ENCRYPTED} == sizes
    refuses("INVALID_SETTING", lambda: bench.open(cache="another").read_verified(blobs[0].sha256))
    monkeypatch.setenv("SALVER_TEST_KEY", OTHER.hex())
    for n, blob in enumerate(blobs):
        assert bench.open(cache="another").read_verified(blob.sha256) == bytes([n]) * 1000


def test_what_nobody_refers_to_goes_when_its_time_has_come(bench: Bench) -> None:
    store = bench.open()
    kept, dropped = bench.put(b"kept"), bench.put(b"dropped")
    now = now_s(store)
    assert list(collectable(store, {kept.sha256}, now + 3500)) == []
    found = list(collectable(store, {kept.sha256}, now + 3700))
    whole = [items for items in found if items[0].sha256 == dropped.sha256]
    assert len(whole) == 1
    assert all(store.remove(items) for items in found)
    assert store.size_bytes(dropped.sha256) is None
    assert store.size_bytes(kept.sha256) == 4
    assert bench.open(cache="another").read_verified(kept.sha256) == b"kept"
    refuses("CORRUPT_ARTIFACT", lambda: store.read_verified(dropped.sha256))
    assert all(name.startswith(kept.sha256) for name in bench.stored())


def test_what_is_stored_again_after_it_was_listed_stays(bench: Bench) -> None:
    store = bench.open()
    blob = bench.put(b"again")
    (items,) = collectable(store, (), now_s(store) + 3700)
    bench.put(b"again", bench.open(cache="another"))
    assert not store.remove(items)
    assert bench.open(cache="third").read_verified(blob.sha256) == b"again"


def test_keys_that_no_blob_uses_are_collected_and_the_one_in_use_is_not(bench: Bench) -> None:
    if bench.kind == "plain":
        return
    blob = bench.put(b"x" * 1000)
    (key,) = bench.stored(Kind.KEY)
    stale = f"{blob.sha256}.{'0' * 16}.key"
    if bench.s3 is not None:
        bench.s3.put(f"some/where/{stale}", b"{}")
    else:
        (bench.path / "blobs" / stale).write_bytes(b"{}")
    store = bench.open()
    for items in list(collectable(store, {blob.sha256}, now_s(store) + 3700)):
        assert store.remove(items)
    assert bench.stored(Kind.KEY) == [key]
    store.verify(blob.sha256)


def test_the_store_of_a_home_is_the_one_its_file_names(bench: Bench) -> None:
    home = Home.open(bench.path / "home")
    lines = ['encryption_key = "env:SALVER_TEST_KEY"\n'] if bench.kind == "encrypted" else []
    if bench.s3 is not None:
        lines += [
            f'artifacts = "s3://{BUCKET}/some/where"\n',
            f'[s3]\nendpoint = "{bench.s3.url}"\nallow_http = true\n',
        ]
    (home.path / "storage.toml").write_text("".join(lines))
    blob = open_blobs(home).put_file(bench.source(b"named"))
    assert open_blobs(home).read_verified(blob.sha256) == b"named"
    assert (bench.name == "s3") == bool(bench.stored())


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_what_comes_through_a_pipe_is_stored_only_under_its_own_digest(bench: Bench, size: int) -> None:
    data = os.urandom(size)

    def receive(expected: str) -> Blob:
        reading, writing = os.pipe()
        feeder = threading.Thread(target=feed, args=(writing, data))
        feeder.start()
        try:
            return bench.open().receive(reading, expected)
        finally:
            os.close(reading)
            feeder.join()

    refuses("CORRUPT_ARTIFACT", lambda: receive("0" * 64))
    refuses("INVALID_ARTIFACT", lambda: receive("../x"))
    assert bench.stored() == []
    blob = receive(hashlib.sha256(data).hexdigest())
    assert blob == Blob(hashlib.sha256(data).hexdigest(), size)
    assert b"".join(bench.open(cache="another").pieces(blob.sha256)) == data


def feed(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
        pipe.write(data)


def test_the_last_piece_is_not_handed_out_before_all_are_known_to_be_right(bench: Bench) -> None:
    data = os.urandom(2_500_000)
    blob = bench.put(data)
    (name,) = (each for each in bench.stored() if not each.endswith(".key"))
    bench.change(name, lambda kept: kept[:1_200_000] + bytes([kept[1_200_000] ^ 1]) + kept[1_200_001:])
    came = []

    def read() -> None:
        came.extend(bench.open(cache="another").pieces(blob.sha256))

    refuses("CORRUPT_ARTIFACT", read)
    assert len(b"".join(came)) < len(data)
