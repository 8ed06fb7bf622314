"""magika, served: real files in, and the answers of its own package out."""

import bz2
import contextlib
import gzip
import http.client
import json
import lzma
import os
import pickle
import py_compile
import secrets
import sqlite3
import struct
import subprocess
import sys
import tarfile
import wave
import zipfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import ROOT
from real_models import MODELS

PACKAGE = MODELS / "bin" / "python"
TEXT = (ROOT / "src" / "salver" / "clock.py").read_bytes()


def of_the_repository():
    """The smallest and the largest file of every kind of name."""
    kinds = {}
    for folder, folders, names in os.walk(ROOT):
        hidden = ["__pycache__", *(name for name in folders if name.startswith(".") and name != ".ci")]
        folders[:] = [name for name in folders if name not in hidden]
        for path in (Path(folder, name) for name in names):
            kinds.setdefault(path.suffix or path.name, []).append(path)
    found = (sorted(paths, key=lambda path: (path.stat().st_size, path)) for paths in kinds.values())
    return {path for paths in found for path in (paths[0], paths[-1])}


def of_this_machine():
    """Programs and libraries."""
    return {Path(sys.executable).resolve(), Path(np._core._multiarray_umath.__file__)}


def written(folder):
    """Files of kinds that no repository of sources holds, each by what usually writes it."""
    array = np.arange(300, dtype=np.float32)
    np.save(folder / "array.npy", array)
    np.savez_compressed(folder / "arrays.npz", array, array)
    (folder / "a.gz").write_bytes(gzip.compress(TEXT))
    (folder / "a.bz2").write_bytes(bz2.compress(TEXT))
    (folder / "a.xz").write_bytes(lzma.compress(TEXT))
    (folder / "a.zlib").write_bytes(zlib.compress(TEXT))
    (folder / "a.pickle").write_bytes(pickle.dumps({"rows": list(range(100)), "names": ["a", "b"]}))
    py_compile.compile(str(ROOT / "src" / "salver" / "clock.py"), folder / "clock.pyc")
    pq.write_table(pa.table({"x": array}), folder / "a.parquet")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(ROOT / "LICENSE", "LICENSE")
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.add(ROOT / "LICENSE", "LICENSE")
    with wave.open(str(folder / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((np.sin(array) * 9000).astype("<i2").tobytes())
    with sqlite3.connect(folder / "a.sqlite") as database:
        database.execute("create table rows (x)")
    database.close()
    (folder / "a.png").write_bytes(picture())
    (folder / "a.html").write_text("<!doctype html><html><head><title>x</title></head><body><p>text</p></body></html>")
    (folder / "a.csv").write_text("day,count\n" + "".join(f"2024-01-{day:02},{day * 7}\n" for day in range(1, 29)))
    (folder / "random").write_bytes(np.random.default_rng(0).bytes(50_000))
    return set(folder.iterdir())


def picture():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes((x * y) % 256 for x in range(64)) for y in range(64))
    head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


EDGES = {
    "empty": b"",
    "one letter": b"a",
    "one byte that is no text": b"\xff",
    "seven": b"1234567",
    "eight": b"12345678",
    "white space": b" \n" * 3000,
    "nearly white space": b" " * 5000 + b"abc",
    "a letter cut in two by the block": b" " * 4095 + "é".encode() * 4,
    "less than a block": b"\n\n" + TEXT[:900] + b"\n\n",
    "exactly a block": (TEXT * 8)[:4096],
    "a byte more": (TEXT * 8)[:4097],
    "white space around": b" " * 3000 + TEXT + b"\n" * 3000,
    "large": TEXT * (20_000_000 // len(TEXT)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory, artifacts):
    folder = tmp_path_factory.mktemp("files")
    (folder / "edges").mkdir()
    for name, content in EDGES.items():
        (folder / "edges" / name).write_bytes(content)
    (folder / "written").mkdir()
    edges, made = set((folder / "edges").iterdir()), written(folder / "written")
    artifact = set((artifacts / "magika-model").glob("*.*"))
    return sorted(edges | made | artifact | of_this_machine() | of_the_repository())


@pytest.fixture(scope="module")
def expected(files):
    """Label and score of each file by the package, in an environment of its own."""
    done = subprocess.run(
        [PACKAGE, Path(__file__).parent / "magika_answers.py"],
        input=json.dumps([str(path) for path in files]),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout)]


def test_the_files_are_of_many_kinds(expected):
    kinds = {label for label, _ in expected}
    assert kinds > {
        "elf",
        "png",
        "zip",
        "gzip",
        "pythonbytecode",
        "python",
        "markdown",
        "onnx",
        "empty",
        "txt",
        "unknown",
    }
    assert len(kinds) > 25


@pytest.fixture
def post(served):
    """Ask for an answer on one connection: its body and its headers."""
    place = urlsplit(served.http)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)

    def post(path, body, headers):
        connection.request("POST", f"/v2/models/magika/{path}", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content, answer.headers

    with contextlib.closing(connection):
        yield post


def differing(files, found, expected, tolerance):
    """The files whose label or score is not that of the package."""
    return [
        (path.name, answer, wanted)
        for path, answer, wanted in zip(files, found, expected, strict=True)
        if answer[0] != wanted[0] or abs(answer[1] - wanted[1]) > tolerance
    ]


def test_each_file_as_a_whole_body_gets_the_answer_of_the_package(post, files, expected):
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
    found = []
    for path in files:
        body, told = post("infer", path.read_bytes(), headers)
        found.append(read(body, int(told["Inference-Header-Content-Length"])))
    assert differing(files, found, expected, 1e-3) == []


def test_each_file_as_it_is_gets_the_answer_of_the_package(post, files, expected):
    # Without a body there is no file; an empty one goes by a form.
    sent = [(path, wanted) for path, wanted in zip(files, expected, strict=True) if path.stat().st_size]
    assert len(sent) > 50
    found = []
    for path, _ in sent:
        body, _ = post("predict", path.read_bytes(), {"Content-Type": "application/octet-stream"})
        found += rows(body)
    assert differing([path for path, _ in sent], found, [wanted for _, wanted in sent], 1e-3) == []


def test_files_of_a_form_get_the_answers_of_the_package(post, files, expected):
    found, mark = [], secrets.token_hex(16).encode()
    for at in range(0, len(files), 16):
        parts = [
            b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n%b\r\n" % (mark, path.name.encode(), path.read_bytes())
            for path in files[at : at + 16]
        ]
        kind = f"multipart/form-data; boundary={mark.decode()}"
        body, _ = post("predict", b"".join(parts) + b"--%b--\r\n" % mark, {"Content-Type": kind})
        found += rows(body)
    assert differing(files, found, expected, 0.02) == []


def rows(body):
    """The label and the score of each row of an answer in JSON."""
    answer = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    return list(zip(answer["label"], answer["score"], strict=True))


def read(body, json_bytes):
    """The label and the score in a binary answer of one row."""
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(body[:json_bytes])["outputs"]]
    label, score = body[json_bytes:][: sizes[0]], body[json_bytes + sizes[0] :]
    assert (int.from_bytes(label[:4], "little"), len(score)) == (len(label) - 4, 4)
    return label[4:].decode(), struct.unpack("<f", score)[0]


def test_many_files_in_one_request_get_the_labels_of_the_package(client, files, expected):
    answer = client.predict_all("magika", [path.read_bytes() for path in files])
    assert [label.decode() for label in answer["label"]] == [label for label, _ in expected]
    assert np.abs(answer["score"] - [score for _, score in expected]).max() < 0.02


def test_the_page_shows_what_is_printed(served):
    printed, shown = served.exchange("magika")

    def told(text):
        # The files of this repository change, and their scores with them.
        return [(line.split()[0], Path(line.split()[2]).name) for line in text.splitlines()]

    assert told(printed) == told(shown)
    assert len(told(shown)) > 5


def test_make_says_what_it_could_not_download(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "magika" / "make.py", tmp_path / "out", "--wheels", tmp_path / "none"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PIP_NO_INDEX": "1"},
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "pip could not download what magika/wheels.txt lists")
    assert not (tmp_path / "out").exists()
