"""Data frames in and out: with the client in an environment of its own, and without it here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from salver.protocol.errors import SalverError

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "client" / "bin" / "python"


def test_real_frames_go_in_and_come_out(url, onnx_models):
    assert PYTHON.exists(), "make venv-client makes the environment this test drives"
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("frames_in_pandas.py"), url, onnx_models["iris"].parent],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 6, done.stdout


def test_without_pandas_the_extra_is_named(client, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SalverError, match=r"salver\[pandas\]") as caught:
        client.predict("iris", rows).to_pandas()
    assert caught.value.code == "UNSUPPORTED"
