"""Commands against a server with TLS, with the certificate that the tour makes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "docs" / "tour.md"


@pytest.fixture
def guarded(tree, models, tmp_path):
    """A server with TLS and tokens, made by the commands of the tour."""
    command = re.search(r"^\$ (openssl (?:.*\\\n)*.*)\n", TOUR.read_text(encoding="utf-8"), re.MULTILINE)[1]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start("--require-token", "--tls-cert", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key"))
    (tmp_path / "rows.csv").write_text("1,2\n")
    (tmp_path / "request.json").write_text('{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}')
    return tree


def test_predictions_and_load_trust_what_ca_names(guarded, tmp_path) -> None:
    trusting = ("--ca", tmp_path / "tls.crt", "--token", guarded.admin_token)
    rows = ("predict", "double", "--input", tmp_path / "rows.csv")
    assert guarded.salver(*rows, *trusting)["outputs"] == {"y": [[2, 4]]}
    report = guarded.salver("bench", "double", *trusting, "--duration", "0.2", "--warmup", "0", "--connections", "2")
    assert report["ok"] > 0
    assert report["failed"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "double", "--input", "{here}/rows.csv"),
        ("predict", "double", "--input", "{here}/request.json"),
        ("bench", "double", "--duration", "0.1"),
        ("bench", "double", "--duration", "0.1", "--input", "{here}/request.json"),
    ],
    ids=["rows", "request", "bench", "bench with a request"],
)
def test_a_certificate_that_is_not_trusted_is_answered_with_the_option(guarded, tmp_path, words) -> None:
    done = guarded.command("--json", *(word.format(here=tmp_path) for word in words), "--token", guarded.admin_token)
    assert (done.returncode, done.stdout) == (3, b"")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["code"] == "REFUSED_BY_POLICY"
    assert "is not trusted" in error["message"]
    assert "--ca FILE" in error["remedy"]


def test_a_file_without_certificates_is_named(guarded, tmp_path) -> None:
    for command in ("predict", "bench"):
        done = guarded.command("--json", command, "double", "--ca", tmp_path / "rows.csv")
        assert done.returncode == 1
        assert "rows.csv" in json.loads(done.stderr.splitlines()[-1])["error"]["message"]
