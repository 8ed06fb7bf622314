from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An artifact of two files."""
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "model.py").write_text(
        "import salver\n\n"
        "class Only(salver.Model):\n"
        "    inputs = (salver.TensorSpec('x', 'FP32', (-1, 1)),)\n"
        "    outputs = (salver.TensorSpec('y', 'FP32', (-1, 1)),)\n\n"
        "    def predict(self, inputs):\n"
        "        return {'y': inputs['x']}\n"
    )
    (directory / "salver-model.toml").write_text('entry = "model:Only"\n')
    return directory


@pytest.fixture
def exported(salver, model: Path, tmp_path: Path) -> Path:
    assert salver("register", "only", model).code == 0
    done = salver("export", "only", tmp_path / "out", "--json")
    assert (done.code, done.json["model"], done.json["version"], done.json["files"]) == (0, "only", "1.0.0", 2)
    return tmp_path / "out"


def test_an_export_holds_the_files_their_signature_the_key_and_the_manifest(exported: Path) -> None:
    names = sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file())
    assert names == ["manifest.json", "model.sig", "model/model.py", "model/salver-model.toml", "signing.pub"]
    manifest = json.loads((exported / "manifest.json").read_text())
    assert (manifest["model"], manifest["version"], manifest["format"]) == ("only", "1.0.0", "python")
    assert stat.S_IMODE(exported.stat().st_mode) == 0o755
    assert list(exported.parent.glob(".out*")) == []


def test_what_is_exported_verifies_by_the_home_s_keys_or_by_one_that_is_named(salver, exported: Path, tmp_path) -> None:
    done = salver("verify", exported, "--json")
    assert (done.code, done.json["ok"], done.json["subject"], done.json["problems"]) == (0, True, "only@1.0.0", [])
    (tmp_path / "home.pub").write_text(salver("keys", "show", "--pem").out)
    assert (tmp_path / "home.pub").read_bytes() == (exported / "signing.pub").read_bytes()
    assert salver("--home", tmp_path / "none", "verify", exported, "--public-key", tmp_path / "home.pub").code == 0
    assert salver("verify", exported / "model", "--signature", exported / "model.sig").code == 0
    assert salver("verify", "only@1.0.0").out.startswith("only@1.0.0: verified, 2 files")


def test_what_was_changed_is_named_and_costs_the_exit_code(salver, exported: Path) -> None:
    (exported / "model" / "model.py").write_text("other")
    done = salver("verify", exported, "--json")
    assert (done.code, done.json["ok"], done.json["problems"]) == (1, False, ["file 'model.py' has other bytes"])
    assert "NOT verified" in salver("verify", exported).out
    (exported / "model.sig").write_text((exported / "model.sig").read_text()[:-10])
    done = salver("verify", exported, "--json")
    assert (done.code, done.error["code"]) == (1, "INVALID_ARTIFACT")


def test_stored_bytes_that_were_changed_are_found_and_not_exported(
    salver, exported: Path, home: Path, tmp_path
) -> None:
    (blob,) = [path for path in (home / "blobs").rglob("*") if path.is_file() and b"class Only" in path.read_bytes()]
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes().replace(b"class Only", b"class Evil"))
    done = salver("verify", "only@1.0.0", "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    assert "model.py" in done.json["problems"][0]
    done = salver("export", "only", tmp_path / "second", "--json")
    assert (done.code, done.error["code"]) == (1, "CORRUPT_ARTIFACT")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "home", "out"]


def test_nothing_is_written_over(salver, exported: Path) -> None:
    before = (exported / "model.sig").read_bytes()
    done = salver("export", "only", exported, "--json")
    assert (done.code, done.error["code"]) == (1, "ALREADY_EXISTS")
    assert (exported / "model.sig").read_bytes() == before


@pytest.mark.parametrize("target", ["nothing", "only@9.9.9"])
def test_what_is_not_there_cannot_be_verified_or_exported(salver, exported: Path, target: str, tmp_path) -> None:
    for arguments in (("verify", target), ("export", target, tmp_path / "x")):
        done = salver(*arguments, "--json")
        assert (done.code, done.error["code"]) == (1, "NOT_FOUND")


def test_a_directory_that_is_not_there_is_no_model(salver, exported: Path, tmp_path: Path) -> None:
    for target in ("nothing", tmp_path / "nothing", exported / "model.sig"):
        done = salver("verify", target, "--json")
        assert done.error["message"] == f"there is no directory {str(target)!r}"
        assert "NAME@VERSION" in done.error["remedy"]


def test_another_home_takes_an_export_once_it_trusts_the_key(salver, exported: Path, tmp_path: Path) -> None:
    other = ("--home", tmp_path / "other", "--json")
    register = ("register", "only", exported / "model", "--signature", exported / "model.sig")
    done = salver(*other, *register)
    assert (done.code, done.error["code"]) == (3, "REFUSED_BY_POLICY")
    trusted = salver(*other, "keys", "trust", exported / "signing.pub", "--name", "home-one")
    assert (trusted.code, trusted.json["use"]) == (0, "trusted")
    (exported / "model" / "more.py").write_text("")
    assert "'more.py' is not signed" in salver(*other, *register).error["message"]
    (exported / "model" / "more.py").unlink()
    assert salver(*other, *register).json["version"] == "1.0.0"
    assert salver(*other, "export", "only", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "publisher.sig").read_bytes() == (exported / "model.sig").read_bytes()
    assert salver(*other, "keys", "distrust", trusted.json["key_id"]).code == 0
    done = salver(*other, "verify", "only@1.0.0")
    assert done.code == 3
    audited = [record["action"] for record in salver(*other, "audit").json]
    assert [each for each in audited if "key" in each] == ["trust_key", "distrust_key"]


def test_rotated_keys_keep_what_they_signed_and_distrusted_ones_do_not(salver, exported: Path) -> None:
    rotated = salver("keys", "rotate", "--json").json
    assert salver("verify", exported).code == 0
    shown = {each["key_id"]: each["use"] for each in salver("keys", "show", "--json").json}
    assert (shown[rotated["before"]], shown[rotated["after"]]) == ("trusted", "signs")
    assert salver("keys", "distrust", rotated["after"]).code == 1, "it signs now"
    assert salver("keys", "distrust", rotated["before"][:12]).code == 0
    assert salver("verify", exported).code == 3
    assert salver("verify", "only@1.0.0").code == 3
    assert "PRIVATE" not in salver("keys", "show", "--json").out


def test_a_revoked_version_is_not_deployed_packaged_or_called_good(salver, exported: Path, tmp_path: Path) -> None:
    assert salver("deploy", "only").code == 0
    assert salver("revoke", "only@1.0.0", "--json").error["code"] == "INVALID_PARAMETER"
    assert salver("revoke", "only", "--why", "x", "--json").error["code"] == "INVALID_VERSION"
    done = salver("revoke", "only@1.0.0", "--why", "wrong labels", "--json")
    assert (done.code, done.json["endpoints"], done.json["revocation"]["why"]) == (0, ["only"], "wrong labels")
    for arguments in (("deploy", "only@1.0.0"), ("package", "only", "--out", tmp_path / "image")):
        done = salver(*arguments, "--json")
        assert (done.code, done.error["code"]) == (3, "REFUSED_BY_POLICY")
        assert "wrong labels" in done.error["message"]
    assert not (tmp_path / "image").exists()
    assert "no version of model 'only' may serve: 1.0.0 is revoked" in salver("deploy", "only").err
    assert "  revoked     wrong labels\n" in salver("show", "only@1.0.0").out
    done = salver("verify", "only@1.0.0", "--json")
    assert (done.code, done.json["problems"]) == (1, ["it was revoked: wrong labels"])
