from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from salver import __version__
from salver.storage.home import Home, Serving


def commands(app) -> list[list[str]]:
    found = [[command.name] for command in app.registered_commands]
    return found + [
        [group.name, command.name]
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    ]


def test_every_command_has_a_help_text_with_an_example(salver) -> None:
    from salver.cli.app import app

    names = commands(app)
    assert len(names) >= 13
    for name in names:
        done = salver(*name, "--help")
        assert done.code == 0
        assert f"Example: salver {' '.join(name)}" in " ".join(done.out.split()), name
        assert "--home DIR and --json" in done.out, name


def test_every_option_says_what_it_is_and_no_summary_is_cut_off(salver) -> None:
    import typer

    from salver.cli.app import app

    def walk(command):
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{command.name} {parameter.name}"
        for each in getattr(command, "commands", {}).values():
            walk(each)

    walk(typer.main.get_command(app))
    for group in ([], ["token"]):
        assert "..." not in salver(*group, "--help").out.partition("Commands:")[2]


def test_the_help_of_deploy_tells_the_real_defaults() -> None:
    import re

    import msgspec
    import typer

    from salver.cli.app import app
    from salver.protocol.tables import DeploymentSpec, RuntimeOptions

    fields = {
        field.name: field.default for kind in (DeploymentSpec, RuntimeOptions) for field in msgspec.structs.fields(kind)
    }
    options = {parameter.name: parameter for parameter in typer.main.get_command(app).commands["deploy"].params}
    assert fields.keys() - options.keys() == {"version", "runtime", "generation"}, "a setting without an option"
    told = {}
    for name in fields.keys() & options.keys():
        shown = re.search(r"\((\S+)\)\.$", options[name].help)
        if shown:
            told[name] = shown[1]
    assert told.pop("required") == "required"
    assert fields["required"] is True
    assert told.pop("pin") == "any"
    assert len(told) >= 13

    def written(value: object) -> str:
        if isinstance(value, tuple):
            return ", ".join(value) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value)

    assert told == {name: written(fields[name]) for name in told}


def test_home_and_json_may_stand_before_and_after_the_command(salver, tmp_path) -> None:
    for arguments in (
        ["--home", tmp_path / "a", "--json", "models"],
        ["models", "--json", "--home", tmp_path / "a"],
        ["--json", "models", f"--home={tmp_path / 'a'}"],
    ):
        Home.open(tmp_path / "a")
        done = salver(*arguments)
        assert (done.code, done.json, done.err) == (0, [], "")
    assert (tmp_path / "a" / "salver.db").exists()
    assert not (tmp_path / "home").exists()


def test_a_model_is_registered_described_and_listed(salver, models) -> None:
    done = salver("--json", "register", "double", models / "times2.onnx")
    assert done.code == 0
    assert set(done.json) == {
        "model", "version", "created", "digest", "format", "signature", "profiled",
        "against", "changes", "training_data", "lock_digest", "code_commit", "code_dirty", "notes",
    }  # fmt: skip
    assert (done.json["version"], done.json["created"], done.json["format"]) == ("1.0.0", True, "onnx")
    again = salver("register", "double", models / "times2.onnx", "--version", "1.0.0")
    assert again.code == 0
    assert "double@1.0.0  (was registered already)" in again.out
    assert f"sha256:{done.json['digest']}" in again.out
    assert "x  FP32 [any, 2]" in again.out
    assert again.err == ""
    said = salver("register", "double", models / "times2.onnx", "--version", "1.0.0", "--set", "owner=me")
    assert said.code == 0
    assert "was left as it is; `salver describe`" in said.err
    other = salver("--json", "register", "double", models / "times3.onnx", "--version", "1.0.0")
    assert (other.code, other.error["code"], other.out) == (1, "ALREADY_EXISTS", "")
    assert salver("--json", "register", "double", models / "times3.onnx").json["version"] != "1.0.0"
    assert [row["name"] for row in salver("--json", "models").json] == ["double"]
    listed = salver("--json", "models", "double").json
    assert ([row["ordinal"] for row in listed["versions"]], listed["more"]) == ([1, 2], 0)
    assert "double" in salver("models").out
    newest = salver("models", "double", "--limit", "1")
    assert "1.0.1" in newest.out
    assert "1.0.0" not in newest.out
    assert newest.err == "note: and 1 more, registered before these: --limit\n"
    assert salver("--json", "models", "double", "--limit", "1").json["more"] == 1


def test_lists_of_versions_show_stages_and_what_may_not_be_used_any_more(salver, models) -> None:
    for number in ("1.0.0", "1.0.1"):
        salver("register", "double", models / "times2.onnx", "--version", number)
    salver("promote", "double@1.0.0", "archived")
    salver("delete", "double@1.0.0", "--why", "large")
    salver("revoke", "double@1.0.1", "--why", "wrong labels")
    for listed in (salver("models", "double").out, salver("stage", "double").out):
        first, second = listed.splitlines()[1:]
        assert [first.endswith("deleted"), second.endswith("revoked")] == [True, True]
    found = salver("--json", "models", "double").json["versions"]
    keys = ("stage", "revoked", "deleted")
    assert [[each[key] for key in keys] for each in found] == [
        ["archived", False, True], ["development", True, False],
    ]  # fmt: skip
    refused = salver("promote", "double@1.0.1", "validation")
    assert "try: take another version" in refused.err


MODEL = """
import salver

class Scores(salver.Model):
    inputs = (salver.TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (salver.TensorSpec("score", "FP32", (-1,)), MORE)

    def predict(self, inputs):
        return {}
"""


def test_a_number_says_what_its_version_changes(salver, tmp_path) -> None:
    def register(more: str, *words: str):
        (tmp_path / "model.py").write_text(MODEL.replace(", MORE", f", {more}" if more else ","))
        return salver(*words, "register", "scores", tmp_path / "model.py")

    assert register("").out.startswith("scores@1.0.0\n  digest")
    sure = 'salver.TensorSpec("sure", "FP32", (-1,))'
    second = register(sure)
    assert second.out.startswith(
        "scores@1.1.0\n  minor      output 'sure' is new, against 1.0.0\n  minor      the code"
    )
    third = register("", "--json").json
    assert (third["version"], third["against"]) == ("2.0.0", "1.1.0")
    assert third["changes"][0] == {"level": "major", "what": "output 'sure' is gone"}
    (tmp_path / "model.py").write_text(MODEL.replace("MORE", sure).replace("FP32", "FP64"))
    refused = salver("--json", "register", "scores", tmp_path / "model.py", "--version", "2.0.1")
    assert (refused.code, refused.error["code"]) == (1, "INVALID_VERSION")
    assert "2.0.1 says too little" in refused.error["message"]
    assert "input 'x' is FP64, it was FP32" in refused.error["message"]
    assert refused.error["remedy"].startswith("use 3.0.0 or higher")
    details = [record["details"] for record in salver("--json", "audit").json if record["action"] == "register"]
    assert details[1]["against"] == "1.0.0"
    assert details[1]["changes"][0] == "output 'sure' is new"


def test_the_same_bytes_twice_take_no_more_disk(salver, models, home) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in (home / "blobs").rglob("*") if path.is_file())

    salver("register", "a", models / "times2.onnx")
    before = size()
    salver("register", "b", models / "times2.onnx")
    assert size() == before


def test_what_a_killed_registration_left_half_goes_with_the_next_one(salver, models, home) -> None:
    salver("register", "a", models / "times2.onnx")
    remains = home / "blobs" / "incoming" / "tmp0killed"
    remains.write_bytes(b"half")
    assert salver("register", "b", models / "times3.onnx").code == 0
    assert not remains.exists()
    (found,) = [row for row in salver("--json", "doctor").json if row["check"] == "stored bytes"]
    assert found["found"].startswith("2 files match their digests, 0.0 MiB")


class Canary:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_needs_a_word_and_is_never_loaded_without(salver, tmp_path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Canary(str(tmp_path / "canary"))))
    done = salver("--json", "register", "p", tmp_path / "m.pkl")
    assert (done.code, done.error["code"]) == (3, "REFUSED_BY_POLICY")
    assert "--trust-code" in done.error["remedy"]
    assert not (tmp_path / "canary").exists()
    assert salver("--json", "models").json == []


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_a_profile_comes_from_npy_csv_and_parquet(salver, models, tmp_path, kind) -> None:
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    path = tmp_path / f"train.{kind}"
    if kind == "npy":
        np.save(path, table)
    elif kind == "csv":
        path.write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in table))
    else:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        write_table(pa.table({"a": table[:, 0], "b": table[:, 1]}), path)
    done = salver("--json", "register", "m", models / "times2.onnx", "--profile", path)
    assert done.json["profiled"] == ["x"]
    profile = salver("--json", "models", "m").json["versions"][0]["profile"]["inputs"][0]
    assert profile["rows"] == 10


def test_deployments_are_written_down_without_a_server(salver, models) -> None:
    salver("register", "m", models / "times2.onnx")
    salver("register", "m", models / "times3.onnx", "--version", "2.0.0-rc.1")
    done = salver("--json", "deploy", "m", "--endpoint", "e", "--threads", "2", "--wait")
    assert done.json["version"] == "1.0.0"  # the highest that is no pre-release
    assert done.json["runtime"] == {"threads": 2}
    assert "m@2.0.0-rc.1" in salver("deploy", "m@2.0.0-rc.1").out
    state = salver("--json", "status").json
    assert state["serving"] is None
    assert [row["endpoint"] for row in state["deployments"]] == ["e", "m"]
    assert "not serving" in salver("status").out
    assert salver("undeploy", "e").code == 0
    assert [row["endpoint"] for row in salver("--json", "status").json["deployments"]] == ["m"]


def test_the_journal_names_the_user_of_this_machine(salver, models) -> None:
    import pwd

    salver("register", "m", models / "times2.onnx")
    records = salver("--json", "audit").json
    assert {record["actor"] for record in records} == {f"local:{pwd.getpwuid(os.getuid()).pw_name}"}
    assert records[-1]["subject"] == "m@1.0.0"
    assert salver("--json", "audit", "verify").json["ok"]
    assert "chain is whole" in salver("audit", "verify").out
    assert len(salver("--json", "audit", "--limit", "1").json) == 1


def test_a_token_is_shown_once_listed_and_revoked(salver) -> None:
    made = salver("--json", "token", "create", "ci", "--role", "developer", "--tenant", "blue").json
    assert made["token"].startswith("slv_")
    assert "hash" not in made["record"] | salver("--json", "token", "list").json[-1]
    listed = salver("token", "list")
    assert "ci" in listed.out
    assert "blue" in listed.out
    assert made["token"] not in listed.out
    plain = salver("token", "create", "ci", "--role", "developer", "--tenant", "blue")
    assert plain.out.startswith("slv_")
    assert plain.out.count("\n") == 1  # a script can take it as it is
    assert salver("token", "revoke", made["record"]["id"]).code == 0
    assert salver("--json", "token", "revoke", made["record"]["id"]).error["code"] == "NOT_FOUND"


def test_a_token_may_be_made_for_a_time_which_the_list_shows(salver) -> None:
    made = salver("--json", "token", "create", "ci", "--role", "developer", "--expires-in", "90d").json["record"]
    assert made["expires_s"] - made["created_s"] == 90 * 86400
    salver("token", "create", "ann", "--role", "developer")
    salver("token", "create", "gone", "--role", "developer", "--expires-in", "1s")
    lines = {line.split()[1]: line for line in salver("token", "list").out.splitlines()}
    assert lines["name"].endswith("expires")
    assert re.search(r"\d\d:\d\d:\d\d +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d$", lines["ci"])
    assert lines["ann"].endswith("never")
    for wrong in ("90", "d", "-1d", "1.5h", "1y", "1d1d", ""):
        done = salver("--json", "token", "create", "ci", "--role", "developer", "--expires-in", wrong)
        assert (done.code, done.error["code"]) == (1, "INVALID_SETTING"), wrong
    assert salver("--json", "token", "create", "x", "--role", "developer", "--expires-in", "0s").code == 1


def test_an_expired_token_is_shown_as_such() -> None:
    from salver.cli.tokens import _expiry

    assert _expiry(None) == "never"
    assert _expiry(0.0) == "1970-01-01 00:00:00, expired"


def test_the_journal_shows_which_version_was_deployed(salver, models) -> None:
    salver("register", "m", models / "times2.onnx")
    salver("deploy", "m", "--endpoint", "e")
    salver("undeploy", "e")
    deployed, removed = salver("audit").out.splitlines()[-2:]
    assert deployed.split()[-4:] == ["deploy", "e", "->", "m@1.0.0"]
    assert removed.split()[-2:] == ["undeploy", "e"]


def test_what_is_not_the_default_is_shown_and_what_has_changed(salver, models) -> None:
    salver("register", "m", models / "times2.onnx")
    salver("deploy", "m")
    assert salver("status").out.endswith(" -\n"), "nothing behind the table"
    salver("deploy", "m", "--slo", "0.1", "--priority", "max_queue=5", "--priority", "default", "--threads", "2")
    salver("deploy", "m", "--slo", "0.001", "--priority", "none")
    salver("deploy", "m")
    salver("deploy", "m", "--endpoint", "e", "--load", "lazy")
    assert salver("status").out.endswith('\n\ne: load lazy\nm: slo_s 0.001, runtime {"threads":2}\n')
    assert [line.partition("m@1.0.0")[2] for line in salver("audit").out.splitlines()[-5:]] == [
        "",
        ' (slo_s 0 -> 0.1, priorities [] -> [{"max_queue":5},{}], runtime {} -> {"threads":2})',
        ' (slo_s 0.1 -> 0.001, priorities [{"max_queue":5},{}] -> [])',
        "",
        " (load lazy)",
    ]


def test_a_profile_that_fits_no_input_is_answered_with_the_inputs(salver, models, tmp_path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((3, 7)))
    done = salver("--json", "register", "m", models / "times2.onnx", "--profile", tmp_path / "train.npy")
    assert "fits 0 inputs of the model, which takes 'x' FP32 [-1, 2]" in done.error["message"]


def test_a_recipe_of_ones_own_code_says_that_its_imports_are_ones_own_business(salver, models, tmp_path) -> None:
    salver("register", "m", models / "times3.py")
    salver("deploy", "m")
    done = salver("package", "m", "--out", tmp_path / "image")
    assert done.code == 0, done.err
    assert "--requirement" in done.err
    again = salver("package", "m", "--out", tmp_path / "other", "--requirement", "numpy")
    assert again.err == ""


def test_doctor_finds_a_byte_that_has_changed(salver, models, home) -> None:
    salver("register", "m", models / "times2.onnx")
    assert salver("doctor").code == 0
    blob = next(p for p in (home / "blobs").rglob("*") if p.is_file())
    blob.chmod(0o600)
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    done = salver("--json", "doctor")
    assert done.code == 1
    found = [row for row in done.json if row["state"] == "error"]
    assert [row["check"] for row in found] == ["stored bytes"]
    assert "m@1.0.0" in found[0]["found"]
    assert salver("register", "m", models / "times2.onnx").code == 0  # what the finding says helps
    assert salver("doctor").code == 0


def test_version_names_what_it_runs_on(salver) -> None:
    assert salver("--json", "version").json["salver"] == __version__
    assert "onnxruntime" in salver("version").out


def test_the_installed_command_and_the_module_are_the_same(home) -> None:
    done = subprocess.run([sys.executable, "-m", "salver", "--json", "version"], capture_output=True, check=True)
    assert json.loads(done.stdout)["salver"] == __version__


def test_commands_at_the_same_time_wait_for_one_another(home, models) -> None:
    command = [sys.executable, "-m", "salver", "register"]
    racing = [
        subprocess.Popen([*command, f"m{turn}", models / "times2.onnx"], stdout=subprocess.DEVNULL) for turn in range(4)
    ]
    assert [each.wait(60) for each in racing] == [0] * 4


@pytest.mark.parametrize(("grpc", "told"), [("127.0.0.1:8081", "gRPC at 127.0.0.1:8081, "), (None, "")])
def test_the_status_names_every_listener(salver, made, monkeypatch, grpc: str | None, told: str) -> None:
    # It answers the first look only: the state is then read from the home, as without a server.
    looks = iter([Serving(7, "http://127.0.0.1:8080", "http://127.0.0.1:8090", grpc)])
    monkeypatch.setattr(Home, "read_serving", lambda _: next(looks, None))
    line = salver("status").out.splitlines()[0]
    assert line == f"serving at http://127.0.0.1:8080, {told}control at http://127.0.0.1:8090, pid 7"
