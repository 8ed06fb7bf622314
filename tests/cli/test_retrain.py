"""What people see of retraining: the hook, how its last run ended, and until when it rests."""

from __future__ import annotations

import sys


def test_the_list_says_how_the_last_run_ended_and_until_when_it_rests(salver, models, tmp_path) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit('no space left')")
    assert salver("register", "double", models / "times2.onnx").code == 0
    assert salver("retrain", "set", "double", "--command", f"{sys.executable} {script}").code == 0
    assert salver("retrain", "list", "--json").json["double"]["state"] == {"model": "double"}
    assert "no space left" in salver("retrain", "run", "double").err
    again = salver("retrain", "run", "double", "--json")
    assert (again.code, again.error["code"]) == (1, "CONFLICT")
    assert again.error["remedy"].endswith("salver retrain run double --now")
    assert ": failed: the command ended with code 1: no space left  20" in salver("retrain", "list").out
    assert salver("retrain", "run", "double", "--now").code == 1
    assert ": failed, 2 in a row: " in salver("retrain", "list").out
    script.write_text(
        "import os, shutil\nartifact = os.environ['SALVER_ARTIFACT'] + '.onnx'\n"
        f"shutil.copyfile({str(models / 'times3.onnx')!r}, artifact)\nprint(artifact)\n"
    )
    assert salver("retrain", "run", "double", "--now").code == 0
    assert ": made 1.0.1  20" in salver("retrain", "list").out
