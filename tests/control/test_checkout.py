from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from salver.control.checkout import checkout_of

IDENTITY = ("-c", "user.name=ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *IDENTITY, "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "train.py").write_text("print()\n")
    git(folder, "add", "train.py")
    git(folder, "commit", "--quiet", "--message", "train")
    return folder


def test_what_lies_in_a_checkout_has_its_commit_and_only_known_files_make_it_dirty(checkout: Path) -> None:
    model = checkout / "out" / "model.onnx"
    model.parent.mkdir()
    model.write_bytes(b"made here, and no part of the commit")
    commit = git(checkout, "rev-parse", "HEAD")
    assert checkout_of(model) == checkout_of(model.parent) == (commit, "", False)
    (checkout / "train.py").write_text("print(1)\n")
    assert checkout_of(model) == (commit, "", True)


def test_without_a_checkout_a_commit_or_git_there_is_none(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    assert checkout_of(tmp_path) is None
    assert checkout_of(empty) is None
    assert checkout_of(tmp_path / "missing" / "model.onnx") is None
    monkeypatch.setenv("PATH", str(empty))
    assert checkout_of(checkout) is None


def test_variables_that_point_git_elsewhere_change_nothing(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert checkout_of(checkout) is not None


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        ("https://ann:secret@git.example.com:8443/vision/digits.git?token=x", "https://git.example.com:8443/vision/digits.git"),
        ("git@git.example.com:vision/digits.git", "ssh://git.example.com/vision/digits.git"),
        ("ssh://git@git.example.com/vision/digits", "ssh://git.example.com/vision/digits"),
        ("file:///srv/git/digits", ""),
        ("/srv/git/digits", ""),
        ("http://[broken", ""),
    ],
)  # fmt: skip
def test_of_the_remote_no_name_password_or_local_path_is_told(checkout: Path, remote: str, told: str) -> None:
    git(checkout, "remote", "add", "origin", remote)
    found = checkout_of(checkout)
    assert found is not None
    assert found.repository == told


def test_no_program_of_the_checkout_runs(checkout: Path, tmp_path: Path) -> None:
    """A checkout can come with an artifact, from anybody."""
    ran = tmp_path / "ran"
    git(checkout, "config", "core.fsmonitor", f"touch {ran}")
    (checkout / ".git" / "hooks" / "post-index-change").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (checkout / ".git" / "hooks" / "post-index-change").chmod(0o755)
    (checkout / "train.py").write_text("print(1)\n")
    assert checkout_of(checkout).dirty is True
    (checkout / ".gitattributes").write_text("*.py filter=evil\n")
    git(checkout, "config", "filter.evil.clean", f"touch {ran}; cat")
    found = checkout_of(checkout)
    assert found is not None
    assert found.commit
    assert found.dirty is None
    assert not ran.exists()
