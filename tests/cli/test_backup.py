from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def deployed(tree, models):
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    return tree


def test_a_home_that_serves_is_backed_up_and_the_copy_serves_the_same(deployed, trees, tmp_path: Path) -> None:
    deployed.start()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery\n")
    made = deployed.salver("backup", tmp_path / "all.tar.gz", "--passphrase-file", passphrase)
    assert (made["versions"], made["secrets"]) == (1, True)
    assert made["file_bytes"] == (tmp_path / "all.tar.gz").stat().st_size
    copy = trees(tmp_path / "copy")
    assert copy.salver("restore", tmp_path / "all.tar.gz", "--passphrase-file", passphrase) == made
    copy.start()
    assert copy.predict("double", [1, 2]) == deployed.predict("double", [1, 2])
    assert copy.admin_token == deployed.admin_token
    assert copy.administer("GET", "/v1/status").status == 200
    assert copy.stop() == 0
    copy.until(copy.is_gone, "nothing is left", 5)


def test_people_are_told_what_is_in_it_and_to_keep_it_safe(deployed, tmp_path: Path) -> None:
    done = deployed.command("backup", tmp_path / "all.tar")
    assert done.returncode == 0
    assert b"1 version, " in done.stdout
    assert b"keep it as safe" in done.stderr
    done = deployed.command("backup", tmp_path / "open.tar", "--without-secrets")
    assert b"without secrets" in done.stdout
    assert done.stderr == b""
    deployed.environment["SALVER_HOME"] = str(tmp_path / "new")
    done = deployed.command("restore", tmp_path / "open.tar")
    assert b"tokens and webhooks need to be made anew" in done.stderr
    assert deployed.salver("status")["deployments"][0]["endpoint"] == "double"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["backup", "{}/all.zip"], "INVALID_SETTING"),
        (["backup", "{}/nowhere/all.tar"], "NOT_FOUND"),
        (["backup", "{}/all.tar", "--passphrase-file", "{}/none"], "INVALID_PARAMETER"),
        (["backup", "{}/all.tar", "--passphrase-file", "{}/short"], "INVALID_SETTING"),
        (["restore", "{}/none.tar"], "REFUSED_BY_POLICY"),
        (["restore", "{}/none.tar", "--home", "{}/new"], "NOT_FOUND"),
        (["restore", "{}/short", "--home", "{}/new"], "INVALID_ARTIFACT"),
    ],
)
def test_what_cannot_be_done_is_said(deployed, tmp_path: Path, arguments: list[str], code: str) -> None:
    (tmp_path / "short").write_text("secret")
    status, _, complaint = deployed.attempt(*[argument.format(tmp_path) for argument in arguments])
    assert status == (3 if code == "REFUSED_BY_POLICY" else 1)
    assert f'"{code}"' in complaint
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob("*.tar"))
