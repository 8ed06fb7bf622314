"""The clean worker: what needs more than it is given, or leaves something, does not pass."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import psutil
import pytest
from subjects import run_salver

from salver.evaluation.reports.records import EvaluationRecord
from salver.evaluation.service.clean_process import CleanReport
from salver.evaluation.service.infrastructure import judge_report
from salver.evaluation.suites.service_sections import InfrastructureSettings
from salver.protocol.verdict import Judgement, Verdict

DECLARED = """
[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, 1]
[[outputs]]
name = "value"
datatype = "FP32"
shape = [-1]
"""
MODEL = """
import os, socket, subprocess, sys
from pathlib import Path
import numpy as np
import salver

CLEAN = "salver-clean" in os.environ.get("TMPDIR", "")  # where it does no harm


class Model(salver.Model):
    def load(self, context):
        {load}

    def predict(self, inputs):
        {predict}
        return {{"value": inputs["x"][:, 0] * 2}}
"""
CALLS_HOME = """
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=1).close()
        except OSError:
            pass
"""
FILLS_HOME = "CLEAN and ((Path.home() / '.cache').mkdir(), (Path.home() / '.cache' / 'weights').write_text('x'))"
LEFT = f"# left behind of {os.getpid()}"  # others may run these tests beside us
LEAVES = f"""
        if CLEAN:
            (Path(os.environ['TMPDIR']) / 'left.txt').write_text('x')
            command = [sys.executable, '-c', 'import time; time.sleep(60)  {LEFT}']
            subprocess.Popen(command, start_new_session=True)
"""
SUITE = '[suite]\nname = "clean"\ntarget = "y"\ntask = "regression"\n[infrastructure]\n'


@pytest.fixture
def tried(tmp_path, capsys):
    """The record of the infrastructure check of a model with this code."""

    def run(load: str = "pass", predict: str = "pass", settings: str = ""):
        artifact = tmp_path / "model"
        artifact.mkdir()
        (artifact / "model.py").write_text(MODEL.format(load=load, predict=predict))
        (artifact / "salver-model.toml").write_text(DECLARED)
        x = np.arange(30.0, dtype=np.float32)
        pd.DataFrame({"x": x, "y": 2 * x}).to_csv(tmp_path / "rows.csv", index=False)
        (tmp_path / "suite.toml").write_text(SUITE + settings)
        home = tmp_path / "home"
        assert run_salver(home, "register", "twice", artifact) == 0
        capsys.readouterr()
        run_salver(home, "evaluate", "twice", "--suite", tmp_path / "suite.toml", "--data", tmp_path / "rows.csv")
        record = msgspec.json.decode(capsys.readouterr().out, type=EvaluationRecord)
        return record.check("infrastructure")

    return run


def test_a_quiet_model_starts_and_answers_with_nothing_but_what_it_is_given(tried) -> None:
    found = tried(settings="memory_bytes = 536870912\ncold_start_at_most_s = 60")
    assert found.verdict in (Verdict.SUCCESSFUL, Verdict.INCONCLUSIVE), found.reasons
    if "no network of its own" not in str(found.reasons):
        assert (found.verdict, found.numbers["network_attempts"]) == (Verdict.SUCCESSFUL, 0)
    assert 0 < found.numbers["loaded_s"] <= found.numbers["cold_start_s"] < 60
    assert 10e6 < found.numbers["peak_bytes"] < 536870912
    assert not Path.home().joinpath(".cache", "weights").exists()


def test_a_model_that_swallows_that_it_has_no_network_is_seen_all_the_same(tried) -> None:
    found = tried(predict=CALLS_HOME)
    assert found.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)
    if "no network of its own" not in str(found.reasons):
        assert (found.verdict, found.numbers["network_attempts"] > 0) == (Verdict.FAILED, True)


def test_files_in_its_home_are_named(tried) -> None:
    found = tried(load=FILLS_HOME)
    assert found.verdict is Verdict.FAILED
    assert "it wrote where nobody asked it to: home/.cache/weights" in str(found.reasons)


def test_what_is_left_behind_is_named_and_ended(tried) -> None:
    found = tried(load=LEAVES)
    assert found.verdict is Verdict.FAILED
    assert ("file left.txt" in str(found.reasons), "process python" in str(found.reasons)) == (True, True)
    assert not [each for each in psutil.process_iter(["cmdline"]) if LEFT in str(each.info["cmdline"])]


def test_a_model_that_needs_more_memory_than_is_declared_fails(tried) -> None:
    found = tried(load="self.ballast = bytearray(400 << 20)", settings="memory_bytes = 134217728")
    assert found.verdict is Verdict.FAILED
    assert "in a clean worker with 128 MiB it fails" in str(found.reasons)


def test_a_model_that_answers_otherwise_without_its_surroundings_fails(tried) -> None:
    found = tried(predict="inputs = {'x': inputs['x'] + CLEAN}")
    assert found.verdict is Verdict.FAILED
    assert "20 rows are answered otherwise there than in the evaluation" in str(found.reasons)


@pytest.mark.parametrize(
    ("changes", "settings", "verdict", "said"),
    [
        ({}, {}, Verdict.SUCCESSFUL, "did not try to reach the network"),
        ({"attempts": 3}, {}, Verdict.FAILED, "tried 3 times"),
        ({"attempts": 3}, {"network": True}, Verdict.SUCCESSFUL, "left no file"),
        ({"network": False}, {}, Verdict.INCONCLUSIVE, "no network of its own"),
        ({"read_only": False}, {}, Verdict.INCONCLUSIVE, "could not be seen here"),
        ({"cold_start_s": 2.0}, {"cold_start_at_most_s": 1.0}, Verdict.FAILED, "after 2 s; 1 s are allowed"),
        ({"problem": "no"}, {}, Verdict.FAILED, "it fails: no"),
    ],
)
def test_the_verdict_is_a_pure_look_at_the_report(changes, settings, verdict, said) -> None:
    report = CleanReport(**{"network": True, "read_only": True, "cold_start_s": 0.5, "peak_bytes": 1} | changes)
    found = Judgement.together(judge_report(report, InfrastructureSettings(**settings), 0))
    assert (found.verdict, said in str(found.reasons)) == (verdict, True)
