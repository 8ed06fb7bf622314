"""Artifacts that are not what they say or do not stand still, through the commands themselves."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.checks.home_checks import kept, sound

from salver.runtime import artifact
from salver.storage import blobs


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.open, (str(self.canary), os.O_CREAT | os.O_WRONLY)


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "somebody's code ran"


@pytest.fixture
def one(salver, home, models, tmp_path):
    """A home with one version; afterwards it must be as it was."""
    model = tmp_path / "model.onnx"
    shutil.copy(models / "times2.onnx", model)
    assert salver("register", "double", model).code == 0
    before = kept(home)
    yield model
    assert kept(home) == before, "nothing was registered"
    sound(home)


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def linked(path: Path, to: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("model.onnx")
        link.type, link.linkname = tarfile.SYMTYPE, to
        archive.addfile(link)
    return path


def absolute(path: Path, name: str) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    return path


ARCHIVES = {
    "up": lambda at, _: zipped(at / "m.mar", ("MAR-INF/MANIFEST.json", b"{}"), ("../../evil.py", b"evil")),
    "absolute": lambda at, out: absolute(at / "m.mar", str(out / "evil.py")),
    "link": lambda at, _: linked(at / "m.mar", "/etc/passwd"),
    "bomb": lambda at, _: zipped(at / "m.mar", ("MAR-INF/MANIFEST.json", b"{}"), ("zeros", bytes(80_000_000))),
    "cut off": lambda at, _: cut(zipped(at / "m.mar", ("MAR-INF/MANIFEST.json", b"{}" * 5000))),
}


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize("name", ARCHIVES)
def test_no_archive_gets_out_of_its_directory(salver, one, tmp_path, canary, name) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = ARCHIVES[name](tmp_path, outside)
    there = sorted(tmp_path.rglob("*"))
    done = salver("--json", "import", path, "evil")
    assert (done.code, done.error["code"]) == (1, "INVALID_ARTIFACT"), done
    assert [each for each in sorted(tmp_path.rglob("*")) if each not in there] == []
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.ubj", "m.txt", "m.skops", "m.pt2", "m.joblib", "m.bin"])
@pytest.mark.parametrize("command", ["import", "register"])
def test_no_pickle_is_opened_whatever_it_is_called(salver, one, tmp_path, canary, name, command) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb(canary)))
    done = salver("--json", command, *([path, "evil"] if command == "import" else ["evil", path]))
    assert done.code in (1, 3)
    assert done.error["code"] in ("INVALID_ARTIFACT", "REFUSED_BY_POLICY", "UNSUPPORTED")


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", "link.bin"])
@pytest.mark.parametrize("command", ["import", "register"])
def test_no_data_of_others_comes_in_beside_a_graph(salver, one, tmp_path, location, command) -> None:
    import onnx

    (tmp_path / "secret.bin").write_bytes(bytes(4))
    folder = tmp_path / "graph"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    graph = onnx.load(one)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    source = folder / "model.onnx" if command == "import" else folder
    done = salver("--json", command, *([source, "evil"] if command == "import" else ["evil", source]))
    assert (done.code, done.error["code"]) == (1, "INVALID_ARTIFACT"), done
    assert "passwd:" not in done.err


CHANGES = {
    "grows": lambda model: model.write_bytes(model.read_bytes() + b"\0"),
    "is overwritten": lambda model: model.write_bytes(bytes(reversed(model.read_bytes()))),
    "is replaced": lambda model: (
        shutil.copy(model, model.with_suffix(".new")) and model.with_suffix(".new").replace(model)
    ),
    "vanishes": lambda model: model.unlink(),
    "becomes a link": lambda model: (model.unlink(), model.symlink_to("/etc/passwd")),
    "has company": lambda model: (model.parent / "late.bin").write_bytes(b"late"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["after it was read", "while it is stored", "after it was stored"])
def test_what_does_not_stand_still_is_not_registered(salver, one, tmp_path, monkeypatch, change, when) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    model = folder / "model.onnx"
    shutil.copy(one, model)
    changed = []

    def once() -> None:
        if not changed:
            changed.append(CHANGES[change](model))

    if when == "after it was read":
        described = artifact.Recognised.described
        monkeypatch.setattr(artifact.Recognised, "described", lambda *a: (described(*a), once())[0])
    elif when == "while it is stored":
        write = blobs.write_all
        monkeypatch.setattr(blobs, "write_all", lambda *a: (once(), write(*a))[1])
    else:
        put = blobs.BlobStore.put_file
        monkeypatch.setattr(blobs.BlobStore, "put_file", lambda *a: (put(*a), once())[0])
    done = salver("--json", "register", "double", folder)
    assert (done.code, done.error["code"]) == (1, "INVALID_ARTIFACT"), done
    assert changed


@pytest.mark.parametrize("command", ["register", "promote", "deploy"])
def test_a_disk_that_fills_at_any_write_is_said_to_be_full(
    salver, home, models, tmp_path, monkeypatch, command
) -> None:
    """The n-th write or sync fails, for each n that there is; nothing has changed then, and the next try succeeds."""
    assert salver("register", "double", models / "times2.onnx").code == 0
    words = {
        "register": ["double", models / "times4.onnx"],
        "promote": ["double@1.0.0", "validation"],
        "deploy": ["double"],
    }[command]
    real = {name: getattr(os, name) for name in ("write", "fsync", "pwrite")}
    before = kept(home)
    for failing in itertools.count(1):
        left = [failing]

        def filled(name: str, left: list[int] = left):
            def call(*given):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real[name](*given)

            return call

        with monkeypatch.context() as patched:
            for name in real:
                patched.setattr(os, name, filled(name))
            done = salver("--json", command, *words)
        if left[0] > 0:
            break
        assert (done.code, done.error["code"]) == (1, "STORAGE_FULL"), (failing, done)
        # Published is what is committed, so a disk that fills between the two leaves that to the next command.
        assert kept(home) == before or command == "deploy"
    assert done.code == 0
    assert kept(home) != before
    sound(home)
    assert failing > 1


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from salver.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [["backup", "{out}.tar"], ["backup", "{out}.tar.gz"], ["export", "large", "{out}"]])
def test_no_half_file_is_left_where_there_is_no_room_for_it(salver, home, models, tmp_path, words) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    shutil.copy(models / "times2.onnx", artifact / "model.onnx")
    (artifact / "weights.bin").write_bytes(os.urandom(100_000))
    assert salver("register", "large", artifact).code == 0
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-c", LIMITED, "--json", *(word.format(out=tmp_path / "out") for word in words)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (1, "STORAGE_FULL"), done
    assert sorted(tmp_path.iterdir()) == before
    assert salver(*(word.format(out=tmp_path / "out") for word in words)).code == 0
