"""Storing, encrypting, rekeying and collecting, with a failure or death at every single step."""

from __future__ import annotations

import os

import pytest

DRILL = """
import errno, fcntl, hashlib, os, shutil, signal, sys
from pathlib import Path
from salver.protocol.errors import SalverError
from salver.storage.blob_keys import HomeKeys, LocalKey
from salver.storage.blob_store import Kind
from salver.storage.blobs import BlobStore
from salver.storage.sweeping import collectable

scenario, root = sys.argv[1], Path(sys.argv[2])
OLD, NEW = os.urandom(32), os.urandom(32)
os.environ["SALVER_OLD"], os.environ["SALVER_NEW"] = OLD.hex(), NEW.hex()
PLAIN, ENCRYPTED, EITHER = HomeKeys(""), HomeKeys("env:SALVER_OLD"), HomeKeys("env:SALVER_NEW", "env:SALVER_OLD")
KEPT, DATA = b"kept" * 1000, b"data" * 300_000
SHA = {name: hashlib.sha256(data).hexdigest() for name, data in (("kept", KEPT), ("data", DATA))}
WATCHED = [(os, name) for name in ("open", "write", "fsync", "replace", "unlink", "fchmod", "utime")]
WATCHED.append((fcntl, "flock"))
real = {(module, name): getattr(module, name) for module, name in WATCHED}

class Step:
    failed = ""
    def __init__(self, at):
        self.left = at
    def __enter__(self):
        for key in WATCHED:
            setattr(*key, self.watching(key))
        return self
    def __exit__(self, *_):
        for key, function in real.items():
            setattr(*key, function)
    def watching(self, key):
        def call(*given, **named):
            self.left -= 1
            if self.left == 0:
                Step.failed = key[1]
                if key[1] == "write":
                    real[key](given[0], bytes(given[1])[: len(given[1]) // 2])
                if mode == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC if mode == "full" else errno.EIO, "injected")
            return real[key](*given, **named)
        return call

def store(keys):
    return BlobStore(root / "blobs", keys)

def put(keys, data):
    (root / "source").write_bytes(data)
    return store(keys).put_file(root / "source")

def sweep(keys, referenced):
    for items in list(collectable(store(keys), referenced, 2e10)):
        store(keys).remove(items)

def rekey():
    each = store(EITHER)
    for item in [item for item in each.items() if item.kind is Kind.KEY]:
        each.rewrap(item, LocalKey(OLD), LocalKey(NEW))

SCENARIOS = {  # what there is before, what is tried, whether the data may be absent afterwards, and who reads
    "put": (lambda: put(PLAIN, KEPT), lambda: put(PLAIN, DATA), True, PLAIN),
    "put again": (lambda: (put(PLAIN, KEPT), put(PLAIN, DATA)), lambda: put(PLAIN, DATA), False, PLAIN),
    "put encrypted": (lambda: put(ENCRYPTED, KEPT), lambda: put(ENCRYPTED, DATA), True, ENCRYPTED),
    "put encrypted again": (
        lambda: (put(ENCRYPTED, KEPT), put(ENCRYPTED, DATA)), lambda: put(ENCRYPTED, DATA), False, ENCRYPTED),
    "encrypt": (
        lambda: (put(PLAIN, KEPT), put(PLAIN, DATA)), lambda: store(ENCRYPTED).encrypt(SHA["data"]), False, ENCRYPTED),
    "rekey": (lambda: (put(ENCRYPTED, KEPT), put(ENCRYPTED, DATA)), rekey, False, EITHER),
    "collect": (
        lambda: (put(ENCRYPTED, KEPT), put(ENCRYPTED, DATA)), lambda: sweep(ENCRYPTED, {SHA["kept"]}), True, ENCRYPTED),
}
before, attempt, may_be_absent, readers = SCENARIOS[scenario]

def check():
    reader = store(readers)
    assert reader.read_verified(SHA["kept"]) == KEPT
    if reader.size_bytes(SHA["data"]) is not None:
        assert reader.read_verified(SHA["data"]) == DATA
    else:
        assert may_be_absent
    if mode != "kill" and Step.failed != "unlink":
        assert not list((root / "blobs" / "incoming").iterdir())

def fails(at):
    if mode == "kill":
        pid = os.fork()
        if pid == 0:
            with Step(at):
                attempt()
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0
    open_before = len(os.listdir("/proc/self/fd"))
    step, failed = Step(at), False
    try:
        with step:
            attempt()
    except SalverError as error:
        assert error.code in ("STORAGE_FULL", "CORRUPT_ARTIFACT", "INVALID_ARTIFACT"), error
        failed = True
    except OSError as error:
        assert mode != "full" or error.errno == errno.ENOSPC
        failed = True
    assert len(os.listdir("/proc/self/fd")) == open_before
    return failed or step.left <= 0

for mode in ("kill", "fail", "full"):
    at = 1
    while True:
        shutil.rmtree(root / "blobs", ignore_errors=True)
        before()
        if not fails(at):
            break
        check()
        attempt()
        check()
        store(readers).discard_unfinished()
        assert not list((root / "blobs" / "incoming").iterdir())
        at += 1
    Step.failed = ""
    assert (store(readers).size_bytes(SHA["data"]) is None) == (scenario == "collect")
print(at - 1, flush=True)
"""
SCENARIOS = ("put", "put again", "put encrypted", "put encrypted again", "encrypt", "rekey", "collect")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_death_or_failure_at_any_step_leaves_the_old_state_or_the_new(tmp_path, python, scenario) -> None:
    child = python(DRILL, scenario, tmp_path)
    steps = child.stdout.readline()
    assert child.wait(60) == 0
    assert int(steps) >= 3, "every step was tried"
    assert os.listdir(tmp_path / "blobs" / "incoming") == []
