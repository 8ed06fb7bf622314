"""The OpenSSF's `model_signing` 1.1.1, unmodified, in an environment of its own: each side verifies the other's."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.signing import KEY, TRUSTED

from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry
from salver.registry.exported import check_export, check_files_of, write_export
from salver.security.keys import SigningKey, TrustedKeys, VerifyingKey, new_signing_pem
from salver.security.model_signing import sign_manifest
from salver.storage.blobs import BlobStore
from salver.testing import make_manifest

HERE = Path(__file__).parent
BIN = HERE.parents[1] / ".venvs" / "model-signing" / "bin"
FILES = {
    "model.onnx": b"weights",
    "salver-model.toml": b'kind = "predict"\n',
    "a/z": b"1",
    "a/b/c.bin": bytes(range(256)),
    "a b.json": b"{}",
    "a-b": b"",
    ".hidden": b"h",
    ".gitattributes": b"* text\n",
    ".github/workflow.yml": b"on: push\n",
    "sub/.gitignore": b"*.pyc\n",
    "gr\u00fc\u00dfe \u4f60.txt": b"u",
}

Tool = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def tool() -> Iterator[Tool]:
    """Runs commands of the tool, all in one process; returns exit code and output."""
    command = [BIN / "python", HERE / "model_signing_client.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def run(*arguments: object) -> tuple[int, str]:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
            child.stdin.flush()
            code, output = json.loads(child.stdout.readline())
            return code, output

        yield run
        child.stdin.close()
    assert child.returncode == 0


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What `salver export` writes of a version with odd names among its files."""
    blobs = BlobStore(tmp_path / "blobs")
    entries = []
    for name, content in FILES.items():
        (tmp_path / "file").write_bytes(content)
        blob = blobs.put_file(tmp_path / "file")
        entries.append(FileEntry(name, blob.sha256, blob.size_bytes))
    unsigned = make_manifest(files=tuple(sorted(entries, key=lambda entry: entry.path)))
    manifest = make_manifest(files=unsigned.files, attestation=sign_manifest(KEY, unsigned))
    write_export(manifest, TRUSTED, blobs, tmp_path / "out")
    return tmp_path / "out"


def verify(tool: Tool, out: Path, key: Path | None = None, *also: str) -> tuple[int, str]:
    return tool(
        "verify",
        "key",
        out / "model",
        "--signature",
        out / "model.sig",
        "--public_key",
        key or out / "signing.pub",
        *also,
    )


def test_the_command_itself_verifies_what_salver_signed(exported: Path) -> None:
    command = [
        BIN / "model_signing",
        "verify",
        "key",
        "model",
        "--signature",
        "model.sig",
        "--public_key",
        "signing.pub",
    ]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n")


def test_both_verify_what_salver_signed(tool: Tool, exported: Path) -> None:
    assert verify(tool, exported) == (0, "Verification succeeded\n")
    assert verify(tool, exported, None, "--no-ignore-git-paths")[0] == 0, "its own list of ignored paths is in there"
    checked = check_export(exported, TRUSTED)
    assert (checked.ok, checked.subject, checked.files) == (True, "arithmetic@1.0.0", len(FILES))


def change_byte(out: Path) -> None:
    path = out / "model" / "a" / "b" / "c.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def edit_payload(out: Path) -> None:
    bundle = json.loads((out / "model.sig").read_text())
    payload = bundle["dsseEnvelope"]["payload"]
    bundle["dsseEnvelope"]["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    (out / "model.sig").write_text(json.dumps(bundle))


def sign_with_another_key(out: Path) -> None:
    other = SigningKey.parse(new_signing_pem())
    entries = [FileEntry(n, hashlib.sha256(c).hexdigest(), len(c)) for n, c in FILES.items()]
    (out / "model.sig").write_text(sign_manifest(other, make_manifest(files=tuple(entries))))


def edit_bundle(out: Path, **changes: Any) -> None:
    bundle = json.loads((out / "model.sig").read_text())
    bundle.update(changes)
    (out / "model.sig").write_text(json.dumps(bundle))


def edit_signature(out: Path) -> None:
    bundle = json.loads((out / "model.sig").read_text())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "MEQCIA=="
    (out / "model.sig").write_text(json.dumps(bundle))


SPOILED: dict[str, Callable[[Path], Any]] = {
    "a byte": change_byte,
    "a byte more": lambda out: (out / "model" / "a-b").write_bytes(b"x"),
    "a name": lambda out: (out / "model" / "a" / "z").rename(out / "model" / "a" / "y"),
    "a folder": lambda out: (out / "model" / "a" / "b").rename(out / "model" / "b"),
    "an added file": lambda out: (out / "model" / "more.py").write_bytes(b""),
    "an added hidden file": lambda out: (out / "model" / "a" / ".more").write_bytes(b""),
    "a missing file": lambda out: (out / "model" / ".hidden").unlink(),
    "a link": lambda out: (out / "model" / "link").symlink_to(out / "model" / "a-b"),
    "a truncated envelope": lambda out: (out / "model.sig").write_bytes((out / "model.sig").read_bytes()[:-40]),
    "an empty envelope": lambda out: (out / "model.sig").write_bytes(b""),
    "an edited payload": edit_payload,
    "an edited signature": edit_signature,
    "another media type": lambda out: edit_bundle(out, mediaType="application/json"),
    "another key": sign_with_another_key,
}


def refused(check: Callable[[], Any]) -> bool:
    try:
        return not check().ok
    except SalverError:
        return True


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_both_refuse_what_was_changed_since_salver_signed_it(tool: Tool, exported: Path, spoil) -> None:
    spoil(exported)
    code, output = verify(tool, exported)
    assert code == 1, output
    assert refused(lambda: check_export(exported, TRUSTED))


def test_both_refuse_another_public_key(tool: Tool, exported: Path, tmp_path: Path) -> None:
    other = SigningKey.parse(new_signing_pem()).public
    (tmp_path / "other.pub").write_bytes(other.pem)
    assert verify(tool, exported, tmp_path / "other.pub")[0] == 1
    assert refused(lambda: check_export(exported, TrustedKeys({other.key_id: other})))


def test_salver_also_sees_what_the_tool_leaves_out(tool: Tool, exported: Path) -> None:
    (exported / "model" / ".gitattributes").write_bytes(b"changed")
    (exported / "model" / ".gitignore").write_bytes(b"added")
    assert verify(tool, exported)[0] == 0
    problems = check_export(exported, TRUSTED).problems
    assert problems == ("file '.gitignore' is not signed", "file '.gitattributes' has other bytes")
    (exported / "manifest.json").write_bytes(b"{}")
    assert check_export(exported, TRUSTED).problems[-1] == "manifest.json says something else than what is signed"


# The other direction.


@pytest.fixture
def theirs(tool: Tool, tmp_path: Path) -> tuple[Path, TrustedKeys]:
    """A directory that the tool has signed, laid out like an export, and the key to check it with."""
    out = tmp_path / "theirs"
    for name, content in FILES.items():
        if not name.startswith(".git"):
            (out / "model" / name).parent.mkdir(parents=True, exist_ok=True)
            (out / "model" / name).write_bytes(content)
    (tmp_path / "private.pem").write_bytes(new_signing_pem())
    key = SigningKey.parse((tmp_path / "private.pem").read_bytes()).public
    (out / "signing.pub").write_bytes(key.pem)
    code, output = tool(
        "sign", "key", out / "model", "--private_key", tmp_path / "private.pem", "--signature", out / "model.sig"
    )
    assert code == 0, output
    return out, TrustedKeys({key.key_id: VerifyingKey.parse(key.pem, "theirs")})


def check(out: Path, keys: TrustedKeys):
    return check_files_of(out / "model", (out / "model.sig").read_text(), keys, out / "model.sig")


def test_both_verify_what_the_tool_signed(tool: Tool, theirs) -> None:
    out, keys = theirs
    assert verify(tool, out)[0] == 0
    checked = check(out, keys)
    assert (checked.ok, checked.subject, checked.files) == (True, "model", len(FILES) - 2)


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_both_refuse_what_was_changed_since_the_tool_signed_it(tool: Tool, theirs, spoil) -> None:
    out, keys = theirs
    spoil(out)
    assert verify(tool, out)[0] == 1
    assert refused(lambda: check(out, keys))


def test_a_signature_inside_of_what_it_signs_is_not_among_the_files(tool: Tool, theirs, tmp_path: Path) -> None:
    out, keys = theirs
    inside = out / "model" / "model.sig"
    tool("sign", "key", out / "model", "--private_key", tmp_path / "private.pem", "--signature", inside)
    assert check_files_of(out / "model", inside.read_text(), keys, inside).ok
    assert not check_files_of(out / "model", inside.read_text(), keys).ok


@pytest.mark.parametrize("options", [["--ignore-paths", "a-b"]])
def test_a_file_that_the_signer_left_out_is_not_signed_here(tool: Tool, theirs, tmp_path: Path, options) -> None:
    out, keys = theirs
    left_out = [options[0], out / "model" / options[1]]
    tool(
        "sign",
        "key",
        out / "model",
        "--private_key",
        tmp_path / "private.pem",
        "--signature",
        out / "model.sig",
        *left_out,
    )
    assert verify(tool, out)[0] == 0
    assert check(out, keys).problems == ("file 'a-b' is not signed",)
