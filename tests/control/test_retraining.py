"""A verdict that turns bad has a command make a candidate: once, in time, and on the journal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from tests.conftest import until
from tests.homes import database, home

from salver.clock import SYSTEM_CLOCK
from salver.control.action import Nothing
from salver.control.actions.deployments import DEPLOY
from salver.control.actions.models import VERSIONS, OfModel, OfVersions
from salver.control.actions.registration import REGISTER
from salver.control.actions.retraining import ANNOUNCE_HOOK, RETRAINING
from salver.control.actions.status import STATUS
from salver.control.administration import LocalAdministration
from salver.control.registration import draft_version
from salver.control.retraining import Retraining, retrain
from salver.control.retraining_hooks import RetrainingHook, command_of, read_hooks, remove_hook, set_hook
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.registry.deploy_request import DeployRequest
from salver.registry.retraining import RunEnd
from salver.registry.retraining_runs import RetrainingState
from salver.security.access import local_principal
from salver.storage.opening import open_blobs

__all__ = ["database", "home"]

ME = local_principal()


class Bench:
    """A home with a model in use, and a hook for it."""

    def __init__(self, home, database, models: Path, folder: Path) -> None:
        self.home, self.models, self.folder = home, models, folder
        self.admin = LocalAdministration(home, database, ME, SYSTEM_CLOCK)
        self.admin.begin()
        self.admin.do(REGISTER, draft_version(open_blobs(home), "double", models / "times2.onnx"))
        self.admin.do(DEPLOY, DeployRequest("double"))

    def hook(self, program: str, **options) -> RetrainingHook:
        """A hook that runs a Python program, which has the artifact's place in `artifact` and the verdict in `told`."""
        script = self.folder / "train.py"
        head = "import json, os, shutil, sys, time\nartifact = os.environ['SALVER_ARTIFACT']\n"
        script.write_text(f"{head}models = {str(self.models)!r}\nfolder = {str(self.folder)!r}\n{program}")
        hook = RetrainingHook(command=(sys.executable, str(script)), **{"cool_down_s": 0.0} | options)
        set_hook(self.home, "double", hook)
        return hook

    def judge(self, verdict: str = "failed", suite: str = "drift", version: str = "1.0.0", **more) -> str:
        document = {"suite": suite, "verdict": verdict} | more
        return self.admin.records.evaluations.record(ME, "double", version, document).evaluation.id

    def retrain(self, **options):
        return retrain(self.home, lambda: contextlib.nullcontext(self.admin), "double", SYSTEM_CLOCK, **options)

    def records(self, action: str) -> list[dict]:
        return [each.details for each in self.admin.records.journal.records(1000) if each.action == action]


@pytest.fixture
def bench(home, database, models: Path, tmp_path: Path) -> Bench:
    return Bench(home, database, models, tmp_path)


MAKES = "shutil.copyfile(f'{models}/times3.onnx', f'{artifact}.onnx'); print(f'{artifact}.onnx')\n"


def test_the_command_is_told_the_verdict_and_what_it_makes_is_a_candidate(bench: Bench) -> None:
    bench.hook(
        "told = json.load(sys.stdin)\njson.dump(told, open(f'{folder}/told.json', 'w'))\n"
        "shutil.copyfile(f'{models}/times3.onnx', 'new.onnx')\n"
        "print('epoch 1')\n"
        "print(json.dumps({'artifact': 'new.onnx', 'run_id': 'run-7', 'description': {'metrics': {'auc': 0.9}}}))\n"
    )
    evaluation = bench.judge(numbers={"psi": 0.4})
    done = bench.retrain(evaluation=evaluation)
    assert (done.version, done.created, done.problem) == ("1.0.1", True, "")
    told = json.loads((bench.folder / "told.json").read_text())
    assert (told["model"], told["version"], told["run"]) == ("double", "1.0.0", done.run)
    assert told["evaluation"]["verdict"] == "failed"
    assert told["evaluation"]["numbers"] == {"psi": 0.4}
    page = bench.admin.records.pages.page("double", "1.0.1")
    assert page.stage == "development"
    assert (page.description.run_id, page.description.metrics) == ("run-7", {"auc": 0.9})
    assert page.description.base_model == "double@1.0.0"
    assert page.description.change_note == "retrained: suite drift was failed for double@1.0.0"
    assert page.manifest.metadata["retrained_for"] == evaluation
    (began,), (ended,) = bench.records("retrain_begin"), bench.records("retrain_end")
    assert (began["evaluation"], began["verdict"]) == (evaluation, "failed")
    assert (ended["run"], ended["version"], ended["created"]) == (done.run, "1.0.1", True)
    assert bench.admin.do(STATUS, Nothing()).deployments[0].version == "1.0.0"


def test_an_artifact_where_it_was_asked_for_needs_no_words(bench: Bench) -> None:
    bench.hook(
        "os.mkdir(artifact); shutil.copyfile(f'{models}/times3.onnx', f'{artifact}/m.onnx'); print('done, I think')"
    )
    assert bench.retrain().version == "1.0.1"
    assert bench.retrain().created is False


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("sys.stderr.write('no data\\n'); sys.exit(3)", "ended with code 3: no data"),
        ("pass", "made no artifact"),
        ("print('/no/such/place')", "made no artifact"),
        ("print('{\"artifact\": 7}')", "is no answer"),
        ('print(\'{"artefact": "x"\')', "is no answer"),
        ("open(artifact, 'w').write('no model')", "no format recognises"),
        ("time.sleep(60)", "not done within 1 s"),
        ("os.close(0); os.close(1); time.sleep(60)", "not done within 1 s"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_a_command_that_fails_is_told_and_leaves_nothing(bench: Bench, program: str, says: str) -> None:
    bench.hook(program, timeout_s=1.0 if "sleep" in program else 60.0)
    with pytest.raises(SalverError, match=says):
        bench.retrain()
    (ended,) = bench.records("retrain_end")
    assert says in ended["problem"]
    assert len(bench.admin.do(VERSIONS, OfVersions(model="double"))) == 1


def test_a_program_that_is_not_there_is_said(bench: Bench) -> None:
    set_hook(bench.home, "double", RetrainingHook(command=("/no/such/program",)))
    with pytest.raises(SalverError, match="'/no/such/program' does not start: No such file"):
        bench.retrain()


def test_what_it_prints_is_bounded_and_never_waited_for(bench: Bench) -> None:
    bench.hook("sys.stdout.write('x' * 50_000_000 + '\\n'); sys.stderr.write('y' * 5_000_000); " + MAKES)
    assert bench.retrain().created


def test_it_sees_no_secrets_and_what_it_was_given(bench: Bench, monkeypatch) -> None:
    monkeypatch.setenv("SALVER_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("DATA_PLACE", "here")
    bench.hook(
        "json.dump(dict(os.environ), open(f'{folder}/seen.json', 'w')); " + MAKES, environment=("DATA_PLACE", "NOT_SET")
    )
    bench.retrain()
    seen = json.loads((bench.folder / "seen.json").read_text())
    assert seen["DATA_PLACE"] == "here"
    assert not {"SALVER_TOKEN", "AWS_SECRET_ACCESS_KEY", "NOT_SET"} & set(seen)


def test_one_at_a_time_and_then_a_rest(bench: Bench) -> None:
    bench.hook(
        "open(f'{folder}/running', 'w').close()\nwhile not os.path.exists(f'{folder}/go'): time.sleep(0.01)\n" + MAKES,
        cool_down_s=3600.0,
    )
    thread = threading.Thread(target=bench.retrain)
    thread.start()
    until((bench.folder / "running").exists, "the command runs")
    with pytest.raises(SalverError, match="is being retrained") as raised:
        bench.retrain(now=True)
    assert raised.value.code == "CONFLICT"
    (bench.folder / "go").touch()
    thread.join(20)
    with pytest.raises(SalverError, match=r"'double' rests for 3[56]\d\d s more: run \d+ made 1\.0\.1"):
        bench.retrain()
    assert bench.retrain(now=True).created is False
    assert len(bench.records("retrain_begin")) == len(bench.records("retrain_end")) == 2


def test_a_run_that_failed_is_followed_by_a_short_rest_that_grows(bench: Bench) -> None:
    bench.hook("sys.exit('no disk')\n", cool_down_s=86_400.0)

    def state() -> RetrainingState:
        return bench.admin.do(RETRAINING, OfModel("double"))

    assert state() == RetrainingState("double")
    for failures, rest_s in enumerate((60, 120, 240, 480, 960, 1920, 3600, 3600), 1):
        with pytest.raises(SalverError, match="no disk"):
            bench.retrain(now=True)
        now = state()
        assert (now.failures, round(now.rests_until_s - now.ended_s)) == (failures, rest_s)
        assert (now.version, "no disk" in now.problem) == ("", True)
    with pytest.raises(SalverError, match=r"rests for \d+ s more: run \d+ failed: .*no disk") as raised:
        bench.retrain()
    assert raised.value.remedy == "wait, or run it all the same: salver retrain run double --now"
    bench.hook(MAKES, cool_down_s=86_400.0)
    bench.retrain(now=True)
    now = state()
    assert (now.failures, now.problem, now.version) == (0, "", "1.0.1")
    assert now.rests_until_s - now.begun_s == 86_400.0


def test_a_run_that_was_killed_rests_by_whether_it_had_made_a_candidate(bench: Bench) -> None:
    bench.hook(MAKES, cool_down_s=86_400.0)
    retrainings = bench.admin.records.retrainings
    begun = retrainings.begin(ME, "double", 86_400.0)
    state = retrainings.state("double", 86_400.0)
    assert (state.run, state.failures, state.problem) == (begun.run, 1, "it has not ended, or was killed")
    assert state.rests_until_s - state.begun_s == 60.0
    draft = draft_version(open_blobs(bench.home), "double", bench.models / "times3.onnx")
    bench.admin.do(REGISTER, msgspec.structs.replace(draft, metadata={"retraining_run": str(begun.run)}))
    state = retrainings.state("double", 86_400.0)
    assert (state.version, state.failures, state.problem) == ("1.0.1", 0, "")
    assert state.rests_until_s - state.begun_s == 86_400.0


def test_the_loop_answers_verdicts_about_what_is_in_use_and_no_others(bench: Bench, database) -> None:
    bench.judge("failed", "before")
    loop = Retraining(bench.home, bench.admin, SYSTEM_CLOCK)
    bench.hook(MAKES, suite="drift*", on=(Verdict.FAILED, Verdict.INCONCLUSIVE))
    loop.tick()  # what was judged before is past
    for verdict, suite in (("successful", "drift"), ("error", "drift"), ("failed", "release")):
        bench.judge(verdict, suite)
    loop.tick()
    assert bench.records("retrain_begin") == []
    called = bench.judge("inconclusive", "drift-daily")
    loop.tick()
    until(lambda: bench.records("retrain_end"), "it was answered")
    assert bench.records("retrain_begin")[0]["evaluation"] == called
    bench.judge("failed", "drift", version="1.0.1")  # a candidate that nobody uses
    Retraining(bench.home, bench.admin, SYSTEM_CLOCK).tick()
    assert len(bench.records("retrain_begin")) == 1
    whys = [each.why for each in bench.admin.records.journal.records(1000) if each.action == "register"]
    assert whys[-1] == f"evaluation {called} of suite drift-daily"


def test_hooks_are_kept_on_this_machine_and_announced_once(bench: Bench) -> None:
    from salver.control.actions.models import OfModel
    from salver.control.actions.retraining import ANNOUNCE_HOOK

    with pytest.raises(SalverError, match="no retraining hook"):
        bench.retrain()
    hook = bench.hook(MAKES)
    assert read_hooks(bench.home) == {"double": hook}
    assert os.stat(bench.home.path / "retraining.json").st_mode & 0o077 == 0
    assert bench.admin.do(ANNOUNCE_HOOK, OfModel("double")).changed
    assert not bench.admin.do(ANNOUNCE_HOOK, OfModel("double")).changed
    assert bench.records("set_retraining")[0]["hook"]["command"] == list(hook.command)
    assert remove_hook(bench.home, "double") == hook
    assert bench.admin.do(ANNOUNCE_HOOK, OfModel("double")).changed
    assert bench.records("set_retraining")[1]["hook"] is None
    with pytest.raises(SalverError, match="no retraining hook"):
        remove_hook(bench.home, "double")
    for text in ("", "'", "a\0b", "x " * 300):
        with pytest.raises(SalverError):
            command_of(text)
    (bench.home.path / "retraining.json").write_text('{"hooks": {"double": {"command": "rm"}}}')
    with pytest.raises(SalverError, match=r"retraining\.json in the data directory is damaged"):
        read_hooks(bench.home)


def test_a_served_home_retrains_by_itself_and_a_killed_controller_takes_the_command_with_it(tree, models) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("promote", "double@1.0.0", "validation")
    tree.salver("promote", "double@1.0.0", "staging")
    tree.salver("promote", "double@1.0.0", "production")
    tree.start()
    folder = tree.scratch.parent
    script = folder / "train.py"
    script.write_text(
        f"import os, shutil, time\nopen({str(folder / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        f"while not os.path.exists({str(folder / 'go')!r}): time.sleep(0.01)\n"
        f"shutil.copyfile({str(models / 'times3.onnx')!r}, os.environ['SALVER_ARTIFACT'] + '.onnx')\n"
        "print('artifact.onnx')\n"
    )
    made = tree.salver("retrain", "set", "double", "--command", f"{sys.executable} {script}", "--cool-down", "0")
    assert made["hook"]["on"] == ["failed"]

    def fail(number: int) -> None:
        (folder / "verdict.json").write_text(json.dumps({"suite": "drift", "verdict": "failed", "n": number}))
        tree.salver("evaluations", "double@1.0.0", "--document", folder / "verdict.json")

    # The loop begins with what comes after its first look with a hook.
    tree.until(lambda: fail_until_called(fail, folder), "the command runs")
    pid = int((folder / "pid").read_text())
    os.kill(tree.controller_pid, 9)
    tree.until(lambda: not Path(f"/proc/{pid}").exists(), "it has ended with the controller")
    (folder / "pid").unlink()
    (folder / "go").touch()
    tree.until(lambda: fail_until_called(fail, folder), "it is called again")
    tree.until(lambda: len(tree.salver("models", "double")["versions"]) == 2, "there is a candidate")
    assert [each["stage"] for each in tree.salver("stage", "double")] == ["production", "development"]
    assert "is not retrained any more" in tree.command("retrain", "remove", "double").stdout.decode()


NUMBERS = iter(range(10_000))


def fail_until_called(fail, folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if (folder / "pid").read_text():
            return True
    fail(next(NUMBERS))
    return False


def test_secrets_of_a_command_reach_neither_the_journal_nor_its_error(bench: Bench, monkeypatch) -> None:
    monkeypatch.setenv("FEATURE_STORE_KEY", "s3cret-of-the-store")
    script = bench.folder / "failing.py"
    script.write_text(
        "import os, sys\nsys.exit(f\"{sys.argv[2]} and {os.environ['FEATURE_STORE_KEY']} are refused\")\n"
    )
    command = (sys.executable, str(script), "--api-key", "hunter2-hunter2")
    set_hook(bench.home, "double", RetrainingHook(command=command, environment=("FEATURE_STORE_KEY",)))
    bench.admin.do(ANNOUNCE_HOOK, OfModel("double"))
    with pytest.raises(SalverError, match=r"\*\*\* and \*\*\* are refused"):
        bench.retrain()
    (announced,), (ended,) = bench.records("set_retraining"), bench.records("retrain_end")
    assert announced["hook"]["command"][-2:] == ["--api-key", "***"]
    assert ended["problem"].endswith("*** and *** are refused")
    assert bench.admin.do(ANNOUNCE_HOOK, OfModel("double")).changed is False
    text = str(bench.admin.records.journal.records(1000))
    assert "hunter2" not in text
    assert "s3cret" not in text


def test_what_is_said_at_the_end_of_a_run_is_bounded_and_without_secrets(bench: Bench) -> None:
    with pytest.raises(msgspec.ValidationError, match="1000"):
        msgspec.convert({"model": "double", "run": 1, "problem": "x" * 1001}, RunEnd)
    begun = bench.admin.records.retrainings.begin(ME, "double", 0.0)
    bench.admin.records.retrainings.end(ME, RunEnd("double", begun.run, problem="refused: --token abcdefgh"))
    assert bench.records("retrain_end")[0]["problem"] == "refused: --token ***"
