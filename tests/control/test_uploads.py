"""Artifact files over the control listener: whole, under their own name, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pickle
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import until
from tests.control.listening import Listening, listening

from salver.control import examination
from salver.control.uploads import TransferLimits, Transfers
from salver.protocol.errors import SalverError
from salver.registry.collection import CollectionRequest, collect
from salver.security.access import local_principal
from salver.storage.home import Home
from salver.testing import ManualClock

LARGEST = 4_000_000
OPENED: list[socket.socket] = []
LIMITS = TransferLimits(uploads=2, downloads=2, largest_bytes=LARGEST, stall_s=0.3)


@pytest.fixture(scope="module")
def served():
    # Not where other tests have their files: what is in /dev/shm is hidden from who examines an artifact.
    with (
        tempfile.TemporaryDirectory(prefix="salver-test-") as folder,
        listening(Path(folder) / "home", transfers=Transfers(LIMITS)) as made,
    ):
        made.developer = made.token("developer", "dev")
        made.operator = made.token("operator", "op")
        yield made


@pytest.fixture(autouse=True)
def _all_is_over(served: Listening):
    yield
    while OPENED:
        OPENED.pop().close()
    until(lambda: not list((served.home.blobs_path / "incoming").glob("*")), "nothing is being written")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(served: Listening, data: bytes, name: str = "", **options):
    options.setdefault("token", served.developer)
    return served.ask("PUT", f"/v1/blobs/{name or sha256(data)}", data, **options)


def entry(path: str, data: bytes) -> dict:
    return {"path": path, "sha256": sha256(data), "size_bytes": len(data)}


def register(served: Listening, model: str, files: dict[str, bytes], *, token: str = "", **said):
    for data in files.values():
        assert put(served, data).status == 200
    body = {"files": [entry(path, data) for path, data in files.items()]} | said
    return served.ask("POST", f"/v1/models/{model}/versions", body, token=token or served.developer)


class Slow:
    """A client that says one thing at a time."""

    def __init__(self, served: Listening, head: str, token: str = "") -> None:
        port = int(served.url.rpartition(":")[2])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        OPENED.append(self.socket)
        authorization = f"Host: localhost\r\nAuthorization: Bearer {token or served.developer}\r\n"
        self.socket.sendall(f"{head}\r\n{authorization}\r\n".encode())

    def answer(self) -> tuple[int, dict]:
        with contextlib.closing(http.client.HTTPResponse(self.socket)) as answer:
            answer.begin()
            return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_file_that_was_sent_is_there_under_its_digest(served: Listening, size: int) -> None:
    data = os.urandom(size)
    where = f"/v1/blobs/{sha256(data)}"
    absent = served.ask("HEAD", where, token=served.developer)
    if size:
        assert (absent.status, absent.code) == (404, "NOT_FOUND")
    for _ in range(2):
        answer = put(served, data)
        assert (answer.status, answer.json) == (200, {"sha256": sha256(data), "size_bytes": size})
    there = served.ask("HEAD", where, token=served.developer)
    assert (there.status, there.headers["content-length"]) == (200, str(size))
    assert (served.home.blobs_path / sha256(data)).read_bytes() == data


def test_a_file_in_chunks_is_stored_as_well(served: Listening) -> None:
    data = os.urandom(500_000)
    client = Slow(served, f"PUT /v1/blobs/{sha256(data)} HTTP/1.1\r\nTransfer-Encoding: chunked")
    for start in range(0, len(data), 100_000):
        client.socket.sendall(b"186A0\r\n" + data[start : start + 100_000] + b"\r\n")
    client.socket.sendall(b"0\r\n\r\n")
    assert client.answer()[0] == 200
    assert sha256(data) in served.blobs()


def test_what_is_something_else_leaves_nothing(served: Listening) -> None:
    before = served.blobs()
    answer = put(served, b"other bytes" * 100_000, name="1" * 64)
    assert (answer.status, answer.code) == (400, "INVALID_ARTIFACT")
    assert "another digest" in answer.json["message"]
    for name in ("..%2f..%2fsalver.db", "A" * 64, "1" * 63, "x"):
        assert put(served, b"x", name=name).status in (400, 404)
    answer = put(served, b"x", headers={"Content-Encoding": "gzip"})
    assert answer.code == "UNSUPPORTED_MEDIA_TYPE"
    assert served.blobs() == before


@pytest.mark.parametrize("declared", [True, False])
def test_what_is_too_large_is_refused_before_or_while_it_comes(served: Listening, declared: bool) -> None:
    before = served.blobs()
    head = f"PUT /v1/blobs/{'2' * 64} HTTP/1.1\r\n"
    if declared:
        client = Slow(served, f"{head}Content-Length: {LARGEST + 1}")
    else:
        client = Slow(served, f"{head}Transfer-Encoding: chunked")
        with contextlib.suppress(ConnectionError):
            for _ in range(5):
                client.socket.sendall(b"F4240\r\n" + bytes(1_000_000) + b"\r\n")
    status, said = client.answer()
    assert (status, said["code"]) == (413, "BODY_TOO_LARGE")
    assert served.blobs() == before


def test_what_is_cut_off_leaves_nothing(served: Listening) -> None:
    before = served.blobs()
    data = os.urandom(2_000_000)
    client = Slow(served, f"PUT /v1/blobs/{sha256(data)} HTTP/1.1\r\nContent-Length: {len(data)}")
    client.socket.sendall(data[:-1])
    until(lambda: len(served.blobs()) > len(before), "it is being written")
    client.socket.close()
    until(lambda: served.blobs() == before, "nothing of it is left")


def test_what_stalls_is_cut_off(served: Listening) -> None:
    before = served.blobs()
    client = Slow(served, f"PUT /v1/blobs/{'3' * 64} HTTP/1.1\r\nContent-Length: 1000")
    client.socket.sendall(b"x" * 999)
    status, said = client.answer()
    assert (status, said["code"]) == (408, "REQUEST_TIMEOUT")
    assert served.blobs() == before


def test_so_many_come_at_once_and_no_more(served: Listening) -> None:
    data = b"y" * 1000
    head = f"PUT /v1/blobs/{sha256(data)} HTTP/1.1\r\nContent-Length: 1000"
    first = [Slow(served, head, token) for token in (served.developer, served.operator)]
    for each in first:
        each.socket.sendall(data[:500])
    until(lambda: len(list((served.home.blobs_path / "incoming").glob("*"))) == 2, "two come")
    answer = put(served, b"z")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "QUEUE_FULL", "1")
    for each in first:
        each.socket.sendall(data[500:])
        assert each.answer()[0] == 200
    assert put(served, b"z").status == 200


def test_one_principal_does_not_get_all_places_for_uploads(served: Listening) -> None:
    data = b"y" * 1000
    one = Slow(served, f"PUT /v1/blobs/{sha256(data)} HTTP/1.1\r\nContent-Length: 1000")
    one.socket.sendall(data[:500])
    until(lambda: len(list((served.home.blobs_path / "incoming").glob("*"))) == 1, "one comes")
    answer = put(served, b"z")
    assert (answer.status, answer.code) == (429, "QUEUE_FULL")
    assert answer.json["message"] == "dev has 1 of the 2 places for uploads, the most for one principal"
    assert put(served, b"z", token=served.operator).status == 200
    one.socket.sendall(data[500:])
    assert one.answer()[0] == 200


def test_one_principal_does_not_have_all_artifacts_examined(served: Listening, models: Path, monkeypatch) -> None:
    begun, end = threading.Event(), threading.Event()
    really = examination._examine

    def slow(*given, **options):
        begun.set()
        assert end.wait(20)
        return really(*given, **options)

    monkeypatch.setattr(examination, "_examine", slow)
    data = (models / "times2.onnx").read_bytes()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(register, served, "slowly", {"m.onnx": data})
        assert begun.wait(20)
        second = register(served, "second", {"m.onnx": data})
        other = pool.submit(register, served, "other", {"m.onnx": data}, token=served.operator)
        end.set()
        assert (first.result().status, other.result().status) == (200, 200)
    assert (second.status, second.code) == (429, "QUEUE_FULL")
    assert "dev has 1 of the 2 places for examinations" in second.json["message"]


def test_what_an_examination_says_tells_nothing_of_where_it_was(served: Listening, models: Path, monkeypatch) -> None:
    def refuse(path: Path, **_) -> None:
        raise SalverError("INVALID_ARTIFACT", f"cannot read {str(path)!r}", f"look at {path}")

    monkeypatch.setattr(examination, "examine_in_child", refuse)
    answer = register(served, "refused", {"m.onnx": (models / "times2.onnx").read_bytes()})
    assert (answer.status, answer.json["message"]) == (400, "cannot read 'refused/m.onnx'")
    assert str(served.home.path) not in answer.body.decode()


def test_a_full_disk_is_said_and_leaves_nothing(served: Listening, monkeypatch) -> None:
    before = served.blobs()

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("salver.storage.blobs.write_all", full)
    answer = put(served, os.urandom(3_000_000))
    assert (answer.status, answer.code) == (507, "STORAGE_FULL")
    assert served.blobs() == before


def test_what_nobody_registers_is_collected_when_its_time_has_come(served: Listening, models: Path) -> None:
    lonely = os.urandom(1000)
    assert put(served, lonely).status == 200
    kept = (models / "times2.onnx").read_bytes()
    assert register(served, "kept", {"m.onnx": kept}).status == 200
    clock = ManualClock()
    now_s = (served.home.blobs_path / sha256(lonely)).stat().st_mtime
    clock.wall_s = lambda: now_s + 3000.0
    collect(served.home, served.database, local_principal(), clock, CollectionRequest())
    assert sha256(lonely) in served.blobs()
    clock.wall_s = lambda: now_s + 3700.0
    collect(served.home, served.database, local_principal(), clock, CollectionRequest())
    assert sha256(lonely) not in served.blobs()
    assert sha256(kept) in served.blobs()


def test_files_come_back_as_they_are(served: Listening, models: Path) -> None:
    data, note = (models / "times2.onnx").read_bytes(), b"read me " * 300_000
    files = {"model.onnx": data, "docs/read me.txt": note}
    assert register(served, "returned", files).status == 200
    for name, expected in (("model.onnx", data), ("docs/read%20me.txt", note)):
        answer = served.ask("GET", f"/v1/models/returned/versions/latest/files/{name}", token=served.developer)
        assert (answer.status, answer.body) == (200, expected)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["etag"] == f'"{sha256(expected)}"'
    head = served.ask("HEAD", "/v1/models/returned/versions/1.0.0/files/model.onnx", token=served.developer)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(data)), b"")
    for path in ("nothing", "../model.onnx", "docs", "%2e%2e/%2e%2e/salver.db"):
        answer = served.ask("GET", f"/v1/models/returned/versions/1.0.0/files/{path}", token=served.developer)
        assert answer.code == "NOT_FOUND", path


def test_a_file_that_has_rotted_is_never_sent_whole(served: Listening, models: Path) -> None:
    data, small = os.urandom(3_000_000), os.urandom(1000)
    files = {"model.onnx": (models / "times3.onnx").read_bytes(), "large.bin": data, "small.bin": small}
    assert register(served, "rotten", files).status == 200
    for each in (data, small):
        path = served.home.blobs_path / sha256(each)
        path.chmod(0o600)
        path.write_bytes(bytes(1) + each[1:])
    answer = served.ask("GET", "/v1/models/rotten/versions/1.0.0/files/small.bin", token=served.developer)
    assert (answer.status, answer.code) == (500, "CORRUPT_ARTIFACT")
    with pytest.raises(http.client.IncompleteRead):
        served.ask("GET", "/v1/models/rotten/versions/1.0.0/files/large.bin", token=served.developer)
    for each in (data, small):
        assert put(served, each).status == 200  # which heals it
    assert served.ask("GET", "/v1/models/rotten/versions/1.0.0/files/large.bin", token=served.developer).body == data


# What files are is found out from the files.


def test_a_version_is_what_its_files_say(served: Listening, models: Path) -> None:
    answer = register(served, "said", {"whatever.onnx": (models / "times2.onnx").read_bytes()}, tags={"team": "risk"})
    assert answer.status == 200, answer.body
    manifest = answer.json["manifest"]
    assert manifest["format"] == "onnx"
    assert manifest["signature"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    page = served.ask("GET", "/v1/models/said/versions/latest", token=served.developer).json
    assert page["tags"] == {"team": "risk"}
    again = register(served, "said", {"whatever.onnx": (models / "times2.onnx").read_bytes()})
    assert again.json["created"] is False


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "model.txt", "model.ubj", "model.pt2", "model.skops"])
def test_a_pickle_that_is_called_something_else_is_refused_and_never_opened(
    served: Listening, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    answer = register(served, "pickled", {name: pickle.dumps(Bomb(canary))}, token=served.operator)
    # Where a format's library is not installed, that is said first.
    assert answer.code in ("INVALID_ARTIFACT", "UNSUPPORTED"), answer.body
    assert not canary.exists()
    assert served.ask("GET", "/v1/models/pickled", token=served.developer).status == 404


def test_a_pickle_needs_somebody_who_vouches_for_it_and_may(served: Listening, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = {"model.pkl": pickle.dumps(Bomb(canary))}
    assert register(served, "vouched", files, token=served.operator).code == "REFUSED_BY_POLICY"
    assert register(served, "vouched", files, trust_code=True).code == "PERMISSION_DENIED"
    assert not canary.exists()
    # Whoever may vouch has it opened, in a child process; that it is no model is found out there.
    assert register(served, "vouched", files, token=served.operator, trust_code=True).code == "INVALID_ARTIFACT"
    assert canary.exists()


def test_python_is_not_run_for_those_who_may_not_vouch_for_code(served: Listening, models: Path, tmp_path) -> None:
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')\n".encode() + (models / "times3.py").read_bytes()
    refused = register(served, "coded", {"model.py": code})
    assert (refused.status, refused.code) == (403, "PERMISSION_DENIED")
    declared = {"salver-model.toml": b'preprocess = "steps:clean"\n', "steps.py": code}
    declared["model.onnx"] = (models / "times2.onnx").read_bytes()
    assert register(served, "coded", declared).code == "PERMISSION_DENIED"
    assert not canary.exists()
    accepted = register(served, "coded", {"model.py": code}, token=served.operator)
    assert accepted.status == 200, accepted.body
    assert canary.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trusts_code", True),
        ("format", "sklearn"),
        ("signature", {"inputs": [], "outputs": []}),
        ("kind", "embed"),
        ("idempotent", False),
    ],
)
def test_a_draft_that_says_something_else_than_its_files_is_refused(served, models, field, value) -> None:
    data = (models / "times2.onnx").read_bytes()
    found = register(served, "honest", {"m.onnx": data}).json["manifest"]
    draft = {name: found[name] for name in ("format", "files", "signature")} | {"model": "claimed"}
    token = served.token("operator", f"claims-{field}")
    refused = served.ask("POST", "/v1/versions", draft | {field: value}, token=token)
    assert refused.status in (400, 403), refused.body
    assert served.ask("GET", "/v1/models/claimed", token=token).status == 404
    if field == "idempotent":
        assert served.ask("POST", "/v1/versions", draft | {"model": "true"}, token=token).status == 200


def test_a_damaged_file_ends_its_child_and_nothing_else(served: Listening) -> None:
    assert register(served, "damaged", {"model.onnx": b"\x08\x07" + os.urandom(5000)}).code == "INVALID_ARTIFACT"
    assert register(served, "damaged", {"model.ubj": b"{L\x00\x00\x00\x07learner" + bytes(50)}).status == 400
    assert served.thread.is_alive()


def test_a_file_that_is_not_stored_or_has_no_honest_name_is_refused(served: Listening, models: Path) -> None:
    data = (models / "times2.onnx").read_bytes()
    good = entry("m.onnx", data)
    put(served, data)
    for change, code in (
        ({"sha256": "4" * 64}, "NOT_FOUND"),
        ({"size_bytes": 1}, "CORRUPT_ARTIFACT"),
        ({"path": "../m.onnx"}, "INVALID_ARTIFACT"),
        ({"path": "/m.onnx"}, "INVALID_ARTIFACT"),
    ):
        body = {"files": [good | change]}
        answer = served.ask("POST", "/v1/models/odd/versions", body, token=served.developer)
        assert answer.code == code
        assert str(served.home.path) not in answer.body.decode()


def test_who_may_only_read_stores_nothing_and_nothing_is_left_of_what_was_read(served: Listening) -> None:
    token = served.token("approver", "reads")
    for method, path in (("PUT", f"/v1/blobs/{'5' * 64}"), ("HEAD", f"/v1/blobs/{'5' * 64}")):
        assert served.ask(method, path, b"x" if method == "PUT" else None, token=token).code == "PERMISSION_DENIED"
    assert list(Home.open(served.home.path).scratch_path.iterdir()) == []
    assert threading.active_count() < 60
