"""A real tracking server of MLflow, in an environment of its own: its registry is listed, and its versions imported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from salver.clock import SYSTEM_CLOCK
from salver.imports import mlflow_registry
from salver.imports.downloads import Server
from salver.protocol.errors import SalverError

pytestmark = pytest.mark.timeout(300)  # MLflow's server takes its time to start
HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venvs" / "mlflow" / "bin" / "python"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "GIT_PYTHON_REFRESH": "quiet"}


def run(*arguments: object, **environment: str) -> str:
    assert PYTHON.exists(), "make venv-mlflow makes the environment this test drives"
    command = [str(PYTHON), str(HERE / "mlflow_writer.py"), *map(str, arguments)]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | QUIET | environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=kept)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracking(tmp_path_factory, trees, models, mlflow_model):
    """The server's URL; three versions of `sums`, one of `it's boosted`, one of `elsewhere`."""
    directory = tmp_path_factory.mktemp("tracking")
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    places = [f"--backend-store-uri=sqlite:///{directory}/db", f"--artifacts-destination={directory}/artifacts"]
    command = [str(PYTHON), "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", *places]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | QUIET
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight more processes
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=directory
        )
    try:
        tree = trees()

        def answers() -> bool:
            assert server.poll() is None, (directory / "log").read_text()
            with contextlib.suppress(OSError):
                return tree.ask(url, "GET", "/health").status == 200
            return False

        tree.until(answers, "the tracking server answers", 60)
        boosted = mlflow_model(
            directory / "boosted", {"xgboost": {"data": "data/model.xgb"}}, {"data/model.xgb": models["xgboost-ubj"]}
        )
        run("register", url, boosted, TMPDIR=str(directory))
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture
def server(tracking) -> Server:
    return Server(tracking, SYSTEM_CLOCK)


def imported(server: Server, uri: str, tmp_path: Path):
    into = tmp_path / f"into-{uri.rpartition('/')[2]}"
    into.mkdir()
    return mlflow_registry.convert(server, uri, into)


def test_versions_are_listed_with_stages_aliases_and_tags(server) -> None:
    first, second, third = mlflow_registry.list_versions(server, "sums")
    assert [each.version for each in (first, second, third)] == [1, 2, 3]
    assert [each.stage for each in (first, second, third)] == ["Production", "", ""]
    assert (second.aliases, second.description) == (("champion",), "the second one")
    assert second.tags == {"team": "fraud", "free text": "of any kind"}
    with pytest.raises(SalverError) as raised:
        mlflow_registry.list_versions(server, "gone")
    assert raised.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("uri", "version"),
    [("sums/1", "1"), ("sums@champion", "2"), ("sums", "3"), ("sums/latest", "3"), ("sums/production", "1")],
)
def test_a_version_is_found_by_number_alias_and_stage_and_brings_what_its_run_says(
    server, tmp_path, uri, version
) -> None:
    made = imported(server, f"models:/{uri}", tmp_path)
    assert made.format == "python"
    assert made.facts()["imported_from"] == f"models:/sums/{version}"
    said = made.described()
    assert said["metrics"] == {"accuracy": 0.9 + int(version) / 100}
    assert said["hyperparameters"] == {"depth": version, "kind": "sum"}
    assert said["training_data"]["name"] == "rows"
    assert len(said["training_data"]["version"]) == 8
    assert said["run_id"]
    if version == "2":
        assert made.tags() == {"team": "fraud"}
        assert json.loads(made.facts()["other_tags"]) == {"free text": "of any kind"}
        assert said["description"] == "the second one"


def test_what_runs_behind_pyfunc_answers_in_an_environment_with_mlflow(server, tmp_path) -> None:
    made = imported(server, "models:/sums@champion", tmp_path)
    source = str(HERE.parents[1] / "src")
    answer = json.loads(run("answer", made.directory, PYTHONPATH=source).splitlines()[-1])
    assert answer == {"prediction": ["float64", [1.0, 6.5, 0.0]]}


def test_the_command_registers_it_with_all_that(tracking, trees) -> None:
    tree = trees()
    listed = tree.salver("import", "models:/it's boosted", "--list", "--tracking-uri", tracking)
    assert [each["version"] for each in listed] == [1]
    done = tree.salver("import", "models:/it's boosted/1", "--tracking-uri", tracking)
    assert (done["model"], done["version"], done["format"]) == ("it-s-boosted", "1.0.0", "xgboost")
    assert done["metadata"]["imported_from"] == "models:/it's boosted/1"
    assert done["metadata"]["flavor"] == "mlflow.xgboost"
    again = tree.salver("import", "models:/it's boosted", "boosted-too", "--tracking-uri", tracking)
    assert again["digest"] == done["digest"]


def test_what_the_server_does_not_hand_out_is_refused(server, tmp_path) -> None:
    with pytest.raises(SalverError, match="keeps the files at s3") as raised:
        imported(server, "models:/elsewhere", tmp_path)
    assert raised.value.code == "UNSUPPORTED"
    with pytest.raises(SalverError, match="no version '9'; its versions are 1, 2, 3"):
        imported(server, "models:/sums/9", tmp_path)
