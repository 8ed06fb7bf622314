"""A server whose artifacts are in S3 and encrypted: loaded from there, kept here, and the key stays with the server."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil
import pytest
from tests.conftest import Tree, until
from tests.s3 import BUCKET, S3Service, s3, s3_service

__all__ = ["s3", "s3_service"]

KEY = os.urandom(32).hex()


def memory_holds(pid: int, *wanted: bytes) -> bool:
    """Whether one of these is anywhere in the private memory of a process."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw") and not line.endswith(("[vvar]", "(deleted)")):
                start, end = (int(each, 16) for each in place.split("-"))
                memory.seek(start)
                with contextlib.suppress(OSError):
                    found = memory.read(end - start)
                    if any(each in found for each in wanted):
                        return True
    return False


def test_encrypted_versions_in_s3_are_served_also_while_s3_is_gone(
    tree: Tree, s3: S3Service, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_KEK", KEY)
    tree.salver("register", "double", models / "times2.onnx")
    (tree.home / "storage.toml").write_text(
        f'artifacts = "s3://{BUCKET}/models"\nencryption_key = "env:SALVER_KEK"\n'
        f'[s3]\nendpoint = "{s3.url}"\nallow_http = true\ntimeout_s = 5\nretries = 1\n'
    )
    tree.salver("register", "code", models / "times3.py")
    assert tree.salver("storage", "encrypt")["changed"] == 1
    assert tree.salver("storage", "upload") == {"uploaded": 1}
    for path in (tree.home / "blobs").glob("*.enc"):
        path.unlink()  # as on another machine
    tree.salver("deploy", "double")
    tree.salver("deploy", "code")
    tree.start(SALVER_KEK=KEY)
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert tree.predict("code", [1, 2]) == [3, 6]

    s3.fault["*"] = lambda request, _: request.answer(503, b"", {}) or True
    worker = psutil.Process(tree.endpoint("code")["workers"][0])
    assert memory_holds(tree.server_pid, bytes.fromhex(KEY), KEY.encode())
    assert not memory_holds(worker.pid, bytes.fromhex(KEY), KEY.encode(), b"test-secret-key")
    worker.kill()
    until(lambda: tree.endpoint("code").get("restarts") == 1 and tree.endpoint("code")["available"], "another worker")
    assert tree.predict("code", [1, 2]) == [3, 6]
    assert tree.administer("POST", "/v1/storage/collect", {}).code == "STORE_UNAVAILABLE"
    s3.fault.clear()
    assert tree.administer("POST", "/v1/storage/collect", {}).json["blobs"] == 0
    assert KEY not in tree.log_path.read_text()
    assert "test-secret-key" not in tree.log_path.read_text()
