"""A version that was trained on the rows that judge it, whatever is said of how it was made."""

from __future__ import annotations

import json
import runpy

import pytest
from pages import ROOT

from salver.cli import main

EXAMPLE = ROOT / "examples" / "breast_cancer"
LEAKY = "cancer@1.0.0"


@pytest.fixture
def folder(tmp_path):
    """The models of the example, as its training program makes them."""
    runpy.run_path(str(EXAMPLE / "train.py"))["main"](tmp_path)
    return tmp_path


@pytest.fixture
def salver(folder, capsys):
    """Run a command on a home beside the models; returns its document."""

    def run(*words):
        capsys.readouterr()
        main(["--json", "--home", str(folder / "home"), *map(str, words)])
        said = capsys.readouterr()
        assert said.out, said.err
        return json.loads(said.out)

    return run


@pytest.mark.timeout(120)
def test_a_leaky_version_is_never_successful_whether_it_confesses_lies_or_is_silent(folder, salver) -> None:
    def judged():
        """The verdict of the suite, the checks that were not successful, and whether the gates are open then."""
        given = ("--suite", EXAMPLE / "suite.toml", "--data", folder / "cancer.csv", "--record")
        record = salver("evaluate", LEAKY, *given)
        closed = {each["name"]: each["verdict"] for each in record["checks"] if each["verdict"] != "successful"}
        return record["verdict"], closed, salver("promote", LEAKY, "staging")["moved"]

    salver("register", "cancer", folder / "leaky.onnx", "--description", folder / "leaky.toml")
    salver("policy", "set", EXAMPLE / "policy.toml")
    salver("promote", LEAKY, "validation")
    assert judged() == ("failed", {"split": "failed", "baseline": "inconclusive"}, False)
    # It says that it was trained on the other side of the split, as an honest version does.
    salver("describe", LEAKY, "--description", folder / "logistic.toml")
    assert judged() == ("inconclusive", {"baseline": "inconclusive"}, False)
    salver("describe", LEAKY, "--set", "training_data.digest=", "--set", "extra.training_split=")
    assert judged() == ("inconclusive", {"split": "inconclusive", "baseline": "inconclusive"}, False)
