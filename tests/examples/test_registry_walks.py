"""The examples that go the whole way: each version comes as far as it should, on a real server."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest
from pages import ROOT
from real_models import WHEELS

from salver.cli import main

EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(monkeypatch):
    """Import a file of an example as it is when it is run."""

    def load(name, file):
        folder = EXAMPLES / name
        monkeypatch.setattr(sys, "path", [str(EXAMPLES), str(folder), *sys.path])
        for module in ("train", "corpus", "walking"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        spec = importlib.util.spec_from_file_location(f"{name}_{file}", folder / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def answered(home, capsys, *words):
    capsys.readouterr()
    code = main(["--json", "--home", str(home), *map(str, words)])
    said = capsys.readouterr()
    assert code == 0, said.err
    return json.loads(said.out)


@pytest.mark.timeout(300)
def test_five_tabular_versions_come_as_far_as_they_should(example, tmp_path, capsys) -> None:
    example("breast_cancer", "walk").main(tmp_path)
    printed, complaints = capsys.readouterr()
    home = tmp_path / "home"
    stages = {each["version"]: each["stage"] for each in answered(home, capsys, "stage", "cancer")}
    assert stages == {
        "1.0.0": "staging", "1.0.1": "production", "1.0.2": "validation", "1.0.3": "validation", "2.0.0": "development",
    }  # fmt: skip
    found = {
        (each["version"], each["suite"]): each["verdict"] for each in answered(home, capsys, "evaluations", "cancer")
    }
    assert found == {
        ("1.0.0", "release"): "successful", ("1.0.0", "service"): "successful",
        ("1.0.1", "release"): "successful", ("1.0.1", "service"): "successful",
        ("1.0.2", "release"): "failed", ("1.0.3", "release"): "failed", ("2.0.0", "leakage"): "failed",
    }  # fmt: skip
    assert "failed        safeguard    split " in printed  # the leaky one, whose area under the curve is 1
    assert re.search(r"failed +safeguard +target_leakage +'treatment_code' alone predicts the target", printed)
    assert (
        "error: cancer@1.0.0 is in staging; only versions in production, or there before, may be deployed (deploy_from)"
        in complaints
    )
    assert "cancer@1.0.0: staging -> production\n  successful    it was in production before: decision 4" in printed
    assert "takes the word of" not in complaints
    assert re.search(r"incident 12 \(\w+\): label is 0, not 1", printed)
    assert printed.count('"model_version": "1.0.') == 2
    assert answered(home, capsys, "audit", "verify")["ok"] is True


@pytest.mark.timeout(300)
def test_the_suite_of_the_text_example_tells_its_versions_apart(example, tmp_path, capsys) -> None:
    train = example("text_topics", "train")
    train.main(tmp_path, WHEELS)
    suite, home = EXAMPLES / "text_topics" / "suite.toml", tmp_path / "home"
    verdicts = {}
    for name in ("logistic", "worse", "leaky"):
        answered(home, capsys, "register", "rooms", tmp_path / name, "--description", tmp_path / f"{name}.toml")
        capsys.readouterr()
        main(["--json", "--home", str(home), "evaluate", "rooms", "--suite", str(suite),
              "--data", str(tmp_path / "corpus.csv"), "--record"])  # fmt: skip
        record = json.loads(capsys.readouterr().out)
        verdicts[name] = record["verdict"], {each["name"] for each in record["checks"] if each["verdict"] == "failed"}
    assert verdicts["logistic"] == ("successful", set())
    assert verdicts["worse"][0] == "failed"
    assert {"accuracy", "baseline"} <= verdicts["worse"][1]
    assert verdicts["leaky"] == ("failed", {"split"})
    assert {each["verdict"] for each in answered(home, capsys, "evaluations", "rooms")} == {"successful", "failed"}
