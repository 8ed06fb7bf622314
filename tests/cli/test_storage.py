"""`salver storage`: what each command does to a home, and how it says no."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

KEY, OTHER = os.urandom(32).hex(), os.urandom(32).hex()


@pytest.fixture
def registered(salver, models: Path, home: Path) -> Path:
    assert salver("register", "double", models / "times2.onnx").code == 0
    return home


def blobs(home: Path) -> list[str]:
    return sorted(path.suffix for path in (home / "blobs").iterdir() if len(path.name) >= 64)


def test_a_home_is_encrypted_rekeyed_and_still_read(salver, registered: Path, monkeypatch) -> None:
    assert salver("storage", "encrypt").code == 1, "there is no key yet"
    monkeypatch.setenv("SALVER_ONE", KEY)
    (registered / "storage.toml").write_text('encryption_key = "env:SALVER_ONE"\n')
    assert salver("storage", "encrypt", "--json").json == {"changed": 1, "bad": []}
    assert salver("storage", "encrypt", "--json").json == {"changed": 0, "bad": []}
    assert blobs(registered) == [".enc", ".key"]
    assert salver("storage", "verify", "--json").json["ok"]

    key_file = registered.parent / "key"
    key_file.write_text(OTHER)
    key_file.chmod(0o640)
    rekey = ("storage", "rekey", "--new", f"file:{key_file}", "--old", "env:SALVER_ONE", "--json")
    assert "open to others (mode 0640)" in salver(*rekey).error["message"]
    key_file.chmod(0o600)
    assert salver(*rekey).json == {"changed": 1, "bad": []}
    assert salver(*rekey).json == {"changed": 0, "bad": []}
    verified = salver("storage", "verify", "--json")
    assert verified.code == 1
    assert verified.json["bad"][0]["references"] == ["double@1.0.0"]
    assert "is encrypted under the key" in verified.json["bad"][0]["problem"]

    both = f'encryption_key = "file:{key_file}"\nprevious_encryption_key = "env:SALVER_ONE"\n'
    (registered / "storage.toml").write_text(both)
    assert salver("storage", "verify", "--json").json["ok"]
    assert salver("storage", "rekey", "--json").json == {"changed": 0, "bad": []}
    (used,) = salver("storage", "usage", "--json").json
    assert (used["blobs"], used["encrypted"], used["keys"]) == (1, 1, 1)
    assert KEY not in str(verified) + str(used)


def test_a_damaged_file_is_named_with_its_versions(salver, registered: Path) -> None:
    (path,) = [path for path in (registered / "blobs").iterdir() if len(path.name) == 64]
    path.chmod(0o644)
    path.write_bytes(b"other")
    done = salver("storage", "verify")
    assert done.code == 1
    assert "double@1.0.0" in done.out
    assert path.name in done.out
    doctor = salver("doctor", "--json")
    assert [each["state"] for each in doctor.json if each["check"] == "stored bytes"] == ["error"]


def test_encrypting_leaves_a_damaged_file_and_does_the_rest(salver, registered: Path, models, monkeypatch) -> None:
    (bad,) = [path for path in (registered / "blobs").iterdir() if len(path.name) == 64]
    bad.chmod(0o644)
    bad.write_bytes(b"other")
    assert salver("register", "triple", models / "times3.onnx").code == 0
    monkeypatch.setenv("SALVER_STORAGE_ENCRYPTION_KEY", "env:SALVER_ONE")
    monkeypatch.setenv("SALVER_ONE", KEY)
    done = salver("storage", "encrypt", "--json")
    assert done.code == 1
    assert done.json["changed"] == 1
    assert bad.name in done.json["bad"][0]
    assert blobs(registered) == ["", ".enc", ".key"]


def test_collecting_goes_through_the_administration(salver, registered: Path) -> None:
    left = registered / "blobs" / ("0" * 64)
    left.write_bytes(b"left")
    assert salver("storage", "collect", "--json").json["blobs"] == 0
    os.utime(left, (0, 0))
    assert salver("storage", "collect", "--dry-run").out == "1 file, 4 bytes, would go\n"
    assert left.exists()
    assert salver("storage", "collect", "--json").json["digests"] == [left.name]
    assert not left.exists()
    assert "collect" in salver("audit", "--json").out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("artefacts = 1", "unknown field `artefacts`"),
        ('artifacts = "ftp://x/y"', "artifacts has no such value"),
        ('encryption_key = "env:PATH"', "encryption_key is no place of a key"),
        ('encryption_key = "kms:no_such_module:Key"', "is no key service: ModuleNotFoundError"),
        ('encryption_key = "file:/nowhere/key"', "cannot be read: No such file"),
        ('[s3]\nendpoint = "http://x:1"', "s3.endpoint has no TLS"),
        ("cache_bytes = 0", "cache_bytes has no such value"),
        ("x = [", "storage.toml: "),
    ],
)
def test_a_wrong_storage_toml_is_refused_by_name(salver, registered: Path, content: str, said: str) -> None:
    (registered / "storage.toml").write_text(content)
    done = salver("storage", "encrypt", "--json")
    done = done if done.code == 1 and not done.out else salver("storage", "verify", "--json")
    assert done.code == 1
    assert said in done.error["message"]


def test_upload_needs_a_place(salver, registered: Path) -> None:
    assert "artifacts are kept in the home" in salver("storage", "upload", "--json").error["message"]
