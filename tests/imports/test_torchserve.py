"""Archives of TorchServe: what is taken, and what is refused before any of it is run."""

from __future__ import annotations

import json
import zipfile

import pytest

from salver.imports import convert_path, recognise
from salver.protocol.errors import SalverError
from salver.runtime.artifact import read_artifact

PLAIN = "def handle(data, context):\n    return None if data is None else [b'ok' for _ in data]\n"


def test_an_archive_becomes_a_python_model_with_all_that_was_in_it(tmp_path, archived) -> None:
    archive = archived(
        tmp_path / "a.mar",
        "plain.py:handle",
        {"plain.py": PLAIN, "weights.bin": "w", "requirements.txt": "regex==2024.1.1  # text\n"},
        serializedFile="weights.bin",
        requirementsFile="requirements.txt",
    )
    assert recognise(archive) == "mar"
    made = convert_path(archive, tmp_path / "into")
    artifact = read_artifact(made.directory, format=made.format)
    assert artifact.format == "python"
    assert artifact.executes_code
    assert [spec.name for spec in artifact.signature.inputs + artifact.signature.outputs] == ["body", "result"]
    assert {"archive/plain.py", "archive/weights.bin", "archive/MAR-INF/MANIFEST.json"} <= set(artifact.files)
    assert made.facts() | {"version": "2.5", "entry": "plain.py:handle", "model_name": "words"} == made.facts()
    assert made.described()["environment"] == "regex==2024.1.1"
    assert "needs regex" in made.notes[0]


REFUSED = {
    "a handler of TorchServe's own": ("image_classifier", {}, "one of TorchServe's own"),
    "a handler that is not there": ("gone.py", {"other.py": PLAIN}, "not in the archive"),
    "a handler elsewhere": ("../../etc/handler.py", {"h.py": PLAIN}, "not in the archive"),
    "an absolute handler": ("/tmp/h.py", {"h.py": PLAIN}, "not in the archive"),
    "no handler": ("", {"h.py": PLAIN}, "not in the archive"),
    "one that imports ts": ("h.py", {"h.py": "from ts.torch_handler.base_handler import BaseHandler"}, "imports ts"),
    "one whose module does": ("h.py", {"h.py": PLAIN, "sub/m.py": "def f():\n    import ts.utils\n"}, "imports ts"),
    "no Python": ("h.py", {"h.py": "def def"}, "no Python"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_torchserve_is_refused(tmp_path, archived, what) -> None:
    handler, code, says = REFUSED[what]
    with pytest.raises(SalverError) as raised:
        convert_path(archived(tmp_path / "a.mar", handler, code), tmp_path / "into")
    assert raised.value.code in ("UNSUPPORTED", "INVALID_ARTIFACT")
    assert says in raised.value.message
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("no json", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "names no model"),
        (json.dumps({"runtime": "LSP", "model": {"handler": "h.py"}}), "only Python"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path, manifest, says) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", manifest)
        archive.writestr("h.py", PLAIN)
    with pytest.raises(SalverError, match=says) as raised:
        convert_path(tmp_path / "a.mar", tmp_path / "into")
    assert raised.value.code == "INVALID_ARTIFACT"


def test_an_archive_that_leads_out_is_refused(tmp_path, archived) -> None:
    archive = archived(tmp_path / "a.mar", "h.py", {"h.py": PLAIN, "../../canary": "x"})
    with pytest.raises(SalverError, match=r"'\.\.'"):
        convert_path(archive, tmp_path / "deep" if (tmp_path / "deep").mkdir() else tmp_path / "deep" / "into")
    assert not list(tmp_path.rglob("canary"))


def test_nothing_of_a_handler_is_run_by_importing_it(tmp_path, archived) -> None:
    canary = tmp_path / "canary"
    convert_path(
        archived(tmp_path / "a.mar", "h.py", {"h.py": f"open({str(canary)!r}, 'w')\n" + PLAIN}), tmp_path / "into"
    )
    assert not canary.exists()
