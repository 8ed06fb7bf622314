"""The store in S3 on bad days: a service that refuses, lies, stalls or is gone, and a cache with its limits."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.s3 import BUCKET, S3Service, s3, s3_service

from salver.protocol.errors import SalverError
from salver.storage.blob_keys import HomeKeys
from salver.storage.blobs import BlobStore
from salver.storage.remote_blobs import RemoteBlobs
from salver.storage.s3_bucket import S3Bucket
from salver.storage.settings import S3Settings
from salver.storage.sweeping import collectable

__all__ = ["s3", "s3_service"]

PLACE = f"s3://{BUCKET}/a/b"
MIB = 1 << 20


class Machines:
    """Machines that share one store."""

    def __init__(self, service: S3Service, path: Path) -> None:
        self.service = service
        self.path = path

    def store(self, name: str = "one", *, cache_bytes: int = 1 << 30, key: str = "", **settings: Any) -> RemoteBlobs:
        settings = {"endpoint": self.service.url, "allow_http": True, "timeout_s": 5.0, "retries": 1} | settings
        keys = HomeKeys(key)
        bucket = S3Bucket(PLACE, S3Settings(**settings))
        return RemoteBlobs(bucket, BlobStore(self.path / name, keys), keys, cache_bytes)

    def put(self, data: bytes, store: RemoteBlobs | None = None) -> str:
        source = self.path / "source"
        source.write_bytes(data)
        return (store or self.store()).put_file(source).sha256

    def cached(self, name: str = "one") -> set[str]:
        return {path.name for path in (self.path / name).iterdir() if len(path.name) == 64}


@pytest.fixture
def machines(s3: S3Service, tmp_path: Path) -> Machines:
    return Machines(s3, tmp_path)


def refusing(status: int, body: bytes = b"") -> Any:
    def fault(request: Any, _: bytes) -> bool:
        request.answer(status, body, {})
        return True

    return fault


def unavailable(use: Any) -> SalverError:
    with pytest.raises(SalverError) as raised:
        use()
    assert raised.value.code == "STORE_UNAVAILABLE"
    assert PLACE in raised.value.message
    for secret in ("test-key-id", "test-secret-key", "Signature", "127.0.0.1"):
        assert secret not in str(raised.value)
    return raised.value


DENIED = b"<Error><Code>AccessDenied</Code><Message>test-key-id may not</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(500, b"<Error><Code>InternalError</Code></Error>", "500"), (403, DENIED, "403"), (200, b"\0garbage", "")],
)
def test_a_service_that_refuses_or_lies_is_unavailable_and_says_no_secret(machines, status, body, said) -> None:
    blob = machines.put(b"x" * 1000)
    machines.service.fault["*"] = refusing(status, body)
    store = machines.store("another")
    for use in (lambda: machines.put(b"new", store), lambda: store.read_verified(blob), lambda: list(store.items())):
        machines.service.requests.clear()
        try:
            use()
        except SalverError as error:
            assert error.code in ("STORE_UNAVAILABLE", "CORRUPT_ARTIFACT", "CONFLICT")
            assert said in error.message
            assert "test-key-id" not in str(error)
        else:
            pytest.fail("it was believed")
        assert len(machines.service.requests) <= 4, "it was asked for ever"
    machines.service.fault.clear()
    assert store.read_verified(blob) == b"x" * 1000


def test_an_answer_that_is_cut_off_is_not_taken_for_the_file(machines) -> None:
    blob = machines.put(os.urandom(MIB))

    def cut(request: Any, _: bytes) -> bool:
        request.answer(206, b"y" * MIB, {"Content-Range": f"bytes 0-{MIB - 1}/{MIB}"}, sent=1000)
        return True

    machines.service.fault["GET"] = cut
    store = machines.store("another")
    unavailable(lambda: store.read_verified(blob))
    assert machines.cached("another") == set()
    assert not list((machines.path / "another" / "incoming").iterdir())


def test_other_bytes_of_the_right_length_are_found_out_before_they_are_cached(machines) -> None:
    blob = machines.put(os.urandom(MIB))

    def lie(request: Any, _: bytes) -> bool:
        headers = {"Content-Range": f"bytes 0-{MIB - 1}/{MIB}", "ETag": '"x"', "Last-Modified": LONG_AGO}
        request.answer(206, b"y" * MIB, headers)
        return True

    machines.service.fault["GET"] = lie
    with pytest.raises(SalverError, match="holds other bytes") as raised:
        machines.store("another").read_verified(blob)
    assert raised.value.code == "CORRUPT_ARTIFACT"
    assert machines.cached("another") == set()


LONG_AGO = "Thu, 01 Jan 2026 00:00:00 GMT"


def test_a_service_that_stalls_is_given_up_after_the_time_limit(machines) -> None:
    blob, over = machines.put(b"x"), threading.Event()

    def stall(*_: Any) -> bool:
        over.wait(30)
        return False

    machines.service.fault["*"] = stall
    began = time.monotonic()
    unavailable(lambda: machines.store("another", timeout_s=0.2, retries=1).read_verified(blob))
    assert time.monotonic() - began < 5
    over.set()


def test_what_is_cached_loads_while_the_service_is_gone_and_the_rest_says_so(machines) -> None:
    cached, other = machines.put(b"cached"), machines.put(b"other")
    store = machines.store("another", endpoint="http://127.0.0.1:9", retries=0)
    with machines.store("another").hold([cached]):
        pass
    with store.hold([cached]):
        assert BlobStore(store.root).read_verified(cached) == b"cached"
    assert store.read_verified(cached) == b"cached"
    assert "cached on this machine" in unavailable(lambda: store.read_verified(other)).remedy


def test_what_could_not_be_sent_is_not_stored_and_can_be_stored_again(machines) -> None:
    machines.service.fault["PUT"] = refusing(503)
    unavailable(lambda: machines.put(b"later"))
    machines.service.fault.clear()
    assert list(machines.store("another").items()) == []
    blob = machines.put(b"later")
    assert machines.store("another").read_verified(blob) == b"later"


def test_a_missing_bucket_is_named(machines) -> None:
    settings = S3Settings(endpoint=machines.service.url, allow_http=True, retries=0)
    bucket = S3Bucket("s3://other-bucket/x", settings)
    store = RemoteBlobs(bucket, BlobStore(machines.path / "n"), HomeKeys(""), 1)
    with pytest.raises(SalverError, match="s3://other-bucket/x has no such bucket: 404 NoSuchBucket"):
        machines.put(b"x", store)


def test_a_large_file_goes_in_parts_and_is_not_there_before_the_last(machines) -> None:
    data = os.urandom(20 * MIB)
    (machines.path / "source").write_bytes(data)
    local = BlobStore(machines.path / "one")
    blob = local.put_file(machines.path / "source")
    path = machines.path / "one" / blob.sha256
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SalverError, match="holds other bytes"):
        machines.store().upload(blob.sha256)
    assert machines.store().size_bytes(blob.sha256) is None, "the last part was held back"
    machines.put(data)
    parts = [path for method, path in machines.service.requests if method == "PUT" and "partNumber=" in path]
    assert len(parts) >= 3
    machines.service.requests.clear()
    assert machines.store("another").read_verified(blob.sha256) == data
    assert len([1 for method, _ in machines.service.requests if method == "GET"]) == 3


def test_a_damaged_copy_in_the_cache_is_fetched_anew(machines) -> None:
    blob = machines.put(b"whole" * 1000)
    path = machines.path / "one" / blob
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    store = machines.store()
    with store.hold([blob]):
        assert BlobStore(store.root).read_verified(blob) == b"whole" * 1000


def test_the_cache_keeps_what_was_used_last_within_its_bytes(machines) -> None:
    blobs = [machines.put(bytes([n]) * 1000) for n in range(4)]
    small = machines.store("small", cache_bytes=2500)
    for n, blob in enumerate(blobs[:2]):
        small.read_verified(blob)
        os.utime(machines.path / "small" / blob, (n, n))
    small.read_verified(blobs[0])
    small.read_verified(blobs[2])
    assert machines.cached("small") == {blobs[0], blobs[2]}
    with small.hold(blobs):  # together more than the cache may keep
        assert machines.cached("small") == set(blobs)
        machines.put(b"more" * 500, small)
        assert machines.cached("small") >= set(blobs), "what is held stays"
    small.read_verified(machines.put(b"last"))
    assert len(machines.cached("small")) < 4


def test_what_is_only_in_the_cache_is_never_evicted(machines) -> None:
    (machines.path / "source").write_bytes(b"only here" * 100)
    alone = BlobStore(machines.path / "small").put_file(machines.path / "source").sha256
    small = machines.store("small", cache_bytes=10)
    machines.put(b"x" * 500, small)
    assert alone in machines.cached("small")
    small.upload(alone)
    machines.put(b"y" * 500, small)
    assert alone not in machines.cached("small")
    assert small.read_verified(alone) == b"only here" * 100


def test_leases_of_the_dead_hold_nothing(machines, python) -> None:
    blob = machines.put(b"x" * 1000)
    program = """
import sys
from pathlib import Path
from salver.storage.leases import Leases
with Leases(Path(sys.argv[1])).taken([sys.argv[2]]):
    print("held", flush=True)
    sys.stdin.read()
"""
    store = machines.store(cache_bytes=1500)
    child = python(program, machines.path / "one" / "held", blob)
    assert child.stdout.readline() == "held\n"
    machines.put(b"y" * 1000, store)
    assert blob in machines.cached()
    child.kill()
    child.wait()
    machines.put(b"z" * 1000, store)
    assert blob not in machines.cached()
    assert not list((machines.path / "one" / "held").glob("lease-*"))


def test_who_stores_what_is_being_collected_is_told_and_loses_nothing(machines) -> None:
    blob = machines.put(b"x")
    store = machines.store("another")
    (items,) = collectable(store, (), 2e10)
    machines.service.put(f"a/b/{blob}.doom", b"")
    with pytest.raises(SalverError, match="is just being collected") as raised:
        machines.put(b"x")
    assert raised.value.code == "CONFLICT"
    # The collector sees the pin and gives way; its mark goes with it.
    assert not store.remove(items)
    assert machines.put(b"x") == blob
    assert machines.store("third").read_verified(blob) == b"x"


def test_without_the_package_the_extra_is_named(machines, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(SalverError, match="need the package obstore") as raised:
        machines.store()
    assert "salver[s3]" in raised.value.remedy


def test_a_download_that_nobody_reads_to_its_end_is_closed_without_waiting(s3: S3Service) -> None:
    bucket = S3Bucket(PLACE, S3Settings(endpoint=s3.url, allow_http=True))
    bucket.write("large", b"x" * 9 * MIB)
    listed = bucket.head("large")
    assert listed is not None
    coming, go_on = threading.Event(), threading.Event()

    def stalled(request: Any, _: bytes) -> bool:
        if f"bytes={8 * MIB}-" in str(request.headers.get("range")):
            coming.set()
            go_on.wait(60)
        return False

    s3.fault["GET"] = stalled
    pieces = bucket.pieces(listed)
    assert len(next(pieces)) == 8 * MIB
    assert coming.wait(10)
    closing = threading.Thread(target=pieces.close)  # type: ignore[attr-defined]
    closing.start()
    closing.join(10)
    waited = closing.is_alive()
    go_on.set()
    closing.join()
    assert not waited
