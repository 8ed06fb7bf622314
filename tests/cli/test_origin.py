"""Where a version comes from, by the command, in a real checkout; and what is left when its files are given up."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from salver.control import origin
from salver.control.checkout import checkout_of


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, models: Path, monkeypatch) -> Path:
    monkeypatch.setattr(origin, "checkout_of", checkout_of)
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "train.csv").write_text("a,b,y\n1,2,0\n3,4,1\n")
    (folder / "lock.txt").write_text("numpy==2.0\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "train")
    (folder / "model.onnx").write_bytes((models / "times2.onnx").read_bytes())
    return folder


def test_data_lock_and_commit_are_recorded_by_themselves(salver, checkout: Path) -> None:
    given = ("--training-data", checkout / "train.csv", "--target", "y", "--lock", checkout / "lock.txt")
    done = salver("register", "traced", checkout / "model.onnx", *given)
    commit = git(checkout, "rev-parse", "HEAD")
    digest = hashlib.sha256((checkout / "train.csv").read_bytes()).hexdigest()
    assert f"  data       sha256:{digest}  train.csv\n" in done.out
    assert f"  commit     {commit}\n" in done.out + "\n"
    again = salver("--json", "register", "traced", checkout / "model.onnx", "--lock", checkout / "train.csv").json
    assert (again["created"], again["lock_digest"]) == (False, "")
    assert "was left as it is; `salver describe`" in again["notes"][0]
    page = salver("--json", "show", "traced").json
    assert page["description"]["training_data"] == {"name": "train.csv", "digest": digest, "rows": 2}
    assert page["description"]["environment"] == "numpy==2.0\n"
    assert page["manifest"]["profile"]["inputs"][0]["rows"] == 2
    relations = {line.split("  ")[1] for line in salver("lineage", "traced").out.splitlines() if line.startswith("  ")}
    assert {"from", "locked-by", "trained-on"} <= relations
    lock = hashlib.sha256(b"numpy==2.0\n").hexdigest()
    assert "traced@1.0.0" in salver("impact", f"lock:{lock[:12]}").out
    assert f"SHA-256 {lock}" in salver("card", "traced").out


def test_changed_files_are_told_and_keep_a_version_from_being_made_again(salver, checkout: Path) -> None:
    (checkout / "lock.txt").write_text("numpy==2.1\n")
    given = ("--training-data", checkout / "train.csv", "--lock", checkout / "lock.txt")
    told = salver("--json", "register", "traced", checkout / "model.onnx", *given, "--version", "1.0.0").json
    digest, lock = (hashlib.sha256((checkout / name).read_bytes()).hexdigest() for name in ("train.csv", "lock.txt"))
    assert told["training_data"] == {"name": "train.csv", "digest": digest, "rows": 2}
    assert (told["lock_digest"], told["code_dirty"]) == (lock, True)
    assert told["code_commit"] == git(checkout, "rev-parse", "HEAD")
    assert "gives no profile" in told["notes"][0]
    done = salver("register", "traced", checkout / "model.onnx", *given, "--version", "1.0.1")
    assert "with changes that are not committed" in done.out
    assert "train.csv gives no profile: its columns are not the inputs: name the --target" in done.err
    assert salver("--json", "search", "--filter", "code_dirty = true").json["total"] == 2
    assert "with changes that nobody has committed" in salver("card", "traced").out
    assert "from-changed" in salver("lineage", "traced").out
    points = [line for line in salver("checklist", "traced").out.splitlines() if "nobody has committed" in line]
    assert len(points) == 2


def test_what_is_said_wins_and_git_may_be_left_out(salver, checkout: Path) -> None:
    assert salver("register", "said", checkout / "model.onnx", "--set", "code_commit=mine").code == 0
    said = salver("--json", "show", "said").json["description"]
    assert said == {"code_commit": "mine"}
    assert salver("register", "unsaid", checkout / "model.onnx", "--no-git").code == 0
    assert salver("--json", "show", "unsaid").json["description"] == {}


def test_a_deleted_version_is_known_and_nothing_misses_its_files(salver, models: Path) -> None:
    assert salver("register", "old", models / "times2.onnx").code == 0
    assert "salver promote old@1.0.0 archived" in salver("delete", "old@1.0.0", "--why", "large").err
    assert salver("promote", "old@1.0.0", "archived").code == 0
    assert "needs a reason" in salver("delete", "old@1.0.0").err
    assert salver("--json", "delete", "old@1.0.0", "--why", "large").json["why"] == "large"
    assert "1 file" in salver("storage", "collect", "--grace", "0").out
    assert "deleted     large" in salver("show", "old@1.0.0").out
    assert salver("storage", "verify").code == 0
    assert "was deleted by" in salver("export", "old@1.0.0", "old").err
    assert "its files were deleted: large" in salver("checklist", "old@1.0.0").out
    assert "missing" not in salver("doctor").out
