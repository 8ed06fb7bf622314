"""The example pipelines are valid, and their very commands deliver a model, once however often they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.control.listening import Listening, listening

import salver

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "examples" / "pipelines"
CHECKER = ROOT / ".venvs" / "pipelines" / "bin" / "check-jsonschema"

TRAIN = """
import shutil, sys
shutil.copytree({made!r}, sys.argv[1], dirs_exist_ok=True)
"""
SUITE = """
[suite]
name = "release"
target = "benign"
positive = 1
resamples = 200
[split]
kind = "none"
[[metric]]
name = "roc_auc"
at_least = 0.9
"""
POLICY = """
[[transition]]
to = "staging"
[[transition.gate]]
kind = "evaluation"
suite = "release"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two trainings make: `good`, and `bad`, whose labels were shuffled. The pipelines' training only copies."""
    import numpy as np
    import pandas as pd
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = tmp_path_factory.mktemp("trained")
    data = load_breast_cancer()
    frame = pd.DataFrame(data.data, columns=[name.replace(" ", "_") for name in data.feature_names])
    for name, labels in (("good", data.target), ("bad", np.random.default_rng(0).permutation(data.target))):
        out = folder / name
        out.mkdir()
        frame.assign(benign=data.target).to_csv(out / "data.csv", index=False)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(data.data[::2], labels[::2])
        options = {id(model): {"zipmap": False}}
        onnx = to_onnx(model, data.data[:1].astype(np.float32), options=options, target_opset=17)
        (out / "model.onnx").write_bytes(onnx.SerializeToString())
        (out / "model.json").write_text('{"owner": "pipeline", "task": "classification"}')
    return folder


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("github-actions.yml", ["--builtin-schema", "vendor.github-workflows"]),
        ("gitlab-ci.yml", ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
)
def test_a_pipeline_is_what_its_schema_asks_for(name: str, schema: list[str], tmp_path: Path) -> None:
    assert CHECKER.exists(), "make venv-pipelines makes the environment this test drives"

    def check(path: Path) -> int:
        return subprocess.run([CHECKER, *schema, path], capture_output=True, check=False).returncode

    assert check(PIPELINES / name) == 0
    broken = tmp_path / name
    broken.write_text((PIPELINES / name).read_text().replace("script:", "scripts:").replace("run:", "runs:"))
    assert check(broken) == 1


class Runner:
    """Runs the commands of a pipeline as its service would, one after the other, in a checkout."""

    def __init__(self, checkout: Path, served: Listening, trained: Path) -> None:
        self.checkout = checkout
        self.trained = trained
        checkout.mkdir()
        (checkout / "suite.toml").write_text(SUITE)
        shutil.copyfile(PIPELINES / "deliver.py", checkout / "deliver.py")
        self.train("good")
        self.served = served
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SALVER_URL": served.url,
            "SALVER_TOKEN": served.pipeline_token,
            "WHY": "run 7",
            "MODEL": "cancer",
        }

    def train(self, what: str) -> None:
        (self.checkout / "train.py").write_text(TRAIN.format(made=str(self.trained / what)))

    def shell(self, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
            cwd=self.checkout,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


class GitHub(Runner):
    document = yaml.safe_load((PIPELINES / "github-actions.yml").read_text())

    def deliver(self) -> list[tuple[str, int]]:
        """The steps with commands that ran, and how they ended; after a failure none runs."""
        outputs, ended = self.checkout / "outputs", []
        outputs.write_text("")
        for job in self.document["jobs"].values():
            for step in job["steps"]:
                if "run" not in step or step["name"] == "Install":
                    continue
                given = dict(line.split("=", 1) for line in outputs.read_text().splitlines() if "=" in line)
                done = self.shell(step["run"], GITHUB_OUTPUT=str(outputs), **given)
                ended.append((step["name"], done.returncode))
                self.last = done
                if done.returncode:
                    return ended
        return ended


class GitLab(Runner):
    document = yaml.safe_load((PIPELINES / "gitlab-ci.yml").read_text())

    def deliver(self) -> list[tuple[str, int]]:
        ended: list[tuple[str, int]] = []
        given: dict[str, str] = {}
        jobs: dict[str, Any] = {name: job for name, job in self.document.items() if "script" in job}
        for stage in self.document["stages"]:
            for name, job in jobs.items():
                if job["stage"] != stage:
                    continue
                for line in job["script"]:
                    done = self.shell(line, **given)
                    ended.append((name, done.returncode))
                    self.last = done
                    if done.returncode:
                        return ended
                dotenv = job.get("artifacts", {}).get("reports", {}).get("dotenv")
                if dotenv:
                    lines = (self.checkout / dotenv).read_text().splitlines()
                    given |= dict(line.split("=", 1) for line in lines)
        return ended


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Listening]:
    from salver.control.actions.lifecycle import SET_POLICY, NewPolicy

    with listening(tmp_path / "home") as made:
        made.admin.do(SET_POLICY, NewPolicy(POLICY))
        made.pipeline_token = made.token("operator", "pipeline")
        yield made


@pytest.mark.parametrize("service", [GitHub, GitLab])
def test_the_commands_of_a_pipeline_bring_a_model_to_production(service, served, trained, tmp_path: Path) -> None:
    runner, admin = service(tmp_path / "checkout", served, trained), served.admin
    ended = runner.deliver()
    assert all(code == 0 for _, code in ended), (ended, runner.last.stderr)
    assert len(ended) >= 5
    page = admin.records.pages.page("cancer", "1.0.0")
    assert (page.stage, page.endpoints, page.description.owner) == ("production", ("cancer",), "pipeline")
    assert admin.records.evaluations.of("cancer")[0].verdict == "successful"
    assert (runner.checkout / "report" / "evaluation.html").exists()
    records = admin.records.journal.records(1000)
    whys = {each.action: each.why for each in records if each.actor == "pipeline"}
    assert whys.keys() >= {"register", "record_evaluation", "promote", "deploy"}
    assert set(whys.values()) == {"run 7"}


def test_a_step_that_is_repeated_changes_nothing_and_a_bad_model_stops_at_its_gate(
    served, trained, tmp_path: Path
) -> None:
    runner, admin = GitHub(tmp_path / "checkout", served, trained), served.admin
    with salver.Registry(served.url, token=served.pipeline_token) as registry:
        digest = registry.publish_model("cancer", trained / "good" / "model.onnx").digest
        verdict = {"suite": "release", "verdict": "successful", "digest": digest}
        registry.record_evaluation("cancer", "1.0.0", verdict)
        for stage in ("validation", "staging", "production"):
            registry.update_model_stage("cancer", "1.0.0", stage)
        registry.deploy("cancer")
    records = admin.records.journal.records(1000)
    for line in (f"register cancer {trained}/good/model.onnx", "promote cancer@1.0.0 staging", "deploy cancer@1.0.0"):
        done = runner.shell(f"python deliver.py {line}")
        assert done.returncode == 0, done.stderr
    assert admin.records.journal.records(1000) == records

    runner.train("bad")
    stopped = runner.deliver()
    assert stopped[-1] == ("Evaluate", 1), (stopped, runner.last.stderr)
    assert admin.records.evaluations.of("cancer", "1.0.1")[0].verdict == "failed"
    forced = runner.shell("python deliver.py promote cancer@1.0.1 production")
    assert forced.returncode == 1
    assert "release" in forced.stderr
    assert admin.records.pages.page("cancer", "1.0.1").stage == "validation"
    assert admin.records.pages.page("cancer", "production").manifest.version == "1.0.0"
