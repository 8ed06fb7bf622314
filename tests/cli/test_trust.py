"""Commands against a server with TLS, with the certificate that the tour makes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.conftest import serving_double

TOUR = Path(__file__).parents[2] / "docs" / "tour.md"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Where the certificate of the tour lies, and requests."""
    folder = tmp_path_factory.mktemp("guarded")
    command = re.search(r"^\$ (openssl (?:.*\\\n)*.*)\n", TOUR.read_text(encoding="utf-8"), re.MULTILINE)[1]
    subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "rows.csv").write_text("1,2\n")
    (folder / "request.json").write_text('{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}')
    return folder


@pytest.fixture(scope="module")
def guarded(trees, models, here):
    """A server with TLS and tokens."""
    tls = ("--tls-cert", str(here / "tls.crt"), "--tls-key", str(here / "tls.key"))
    with serving_double(trees(), models, "--require-token", *tls) as tree:
        yield tree


def test_predictions_and_load_trust_what_ca_names(guarded, here) -> None:
    trusting = ("--ca", here / "tls.crt", "--token", guarded.admin_token)
    rows = ("predict", "double", "--input", here / "rows.csv")
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
def test_a_certificate_that_is_not_trusted_is_answered_with_the_option(guarded, here, words) -> None:
    code, output, complaint = guarded.attempt(
        *(word.format(here=here) for word in words), "--token", guarded.admin_token
    )
    assert (code, output) == (3, "")
    error = json.loads(complaint.splitlines()[-1])["error"]
    assert error["code"] == "REFUSED_BY_POLICY"
    assert "is not trusted" in error["message"]
    assert "--ca FILE" in error["remedy"]


def test_a_file_without_certificates_is_named(guarded, here) -> None:
    for command in ("predict", "bench"):
        code, _, complaint = guarded.attempt(command, "double", "--ca", here / "rows.csv")
        assert code == 1
        assert "rows.csv" in json.loads(complaint.splitlines()[-1])["error"]["message"]
