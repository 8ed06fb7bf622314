from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.cli.odd_arguments import COMMANDS


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nonsense"], 2, "nonsense"),
        (["deploy"], 2, "NAME[@VERSION]"),
        (["deploy", "m", "--placement", "moon"], 2, "moon"),
        (["deploy", "m", "--replicas", "many"], 2, "--replicas"),
        (["models", "--colour"], 2, "--colour"),
        (["token", "create", "x"], 2, "role"),
        (["serve", "--http", "x"], 2, "--http"),
        (["deploy", "nothing"], 1, "nothing"),
        (["deploy", "nothing@1"], 1, "1"),
        (["deploy", "Bad Name"], 1, "Bad Name"),
        (["models", "nothing"], 1, "nothing"),
        (["undeploy", "nothing"], 1, "nothing"),
        (["register", "m", "/no/such/file.onnx"], 1, "/no/such/file.onnx"),
        (["register", "m", "{models}/broken.onnx"], 1, "broken.onnx"),
        (["register", "m", "{models}/times2.onnx", "--version", "one"], 1, "one"),
        (["register", "m", "{models}/times2.onnx", "--format", "tar"], 1, "tar"),
        (["register", "m", "{models}/times2.onnx", "--profile", "/no/such.npy"], 1, "/no/such.npy"),
        (["register", "m", "{models}/times2.onnx", "--profile", "{models}/times3.py"], 1, "times3.py"),
        (["register", "-m", "{models}/times2.onnx"], 2, "-m"),
        (["token", "create", "x", "--role", "king"], 2, "king"),
        (["token", "create", "admin", "--role", "admin"], 1, "admin"),
        (["predict", "m", "--input", "/no/such.npy"], 1, "nothing serves"),
        (["serve", "--config", "/no/such.toml"], 1, "/no/such.toml"),
        (["serve", "--tls-cert", "/no/such.pem"], 1, "tls_key"),
        (["serve", "--tls-cert", "/no/such.pem", "--tls-key", "/no/such.key", "--http", "0"], 1, "/no/such.pem"),
        (["serve", "--http", "70000"], 1, "70000"),
        (["serve", "--host", "0.0.0.0", "--http", "0"], 3, "0.0.0.0"),
        (["serve", "--host", "256.0.0.1", "--http", "0", "--insecure"], 1, "256.0.0.1"),
        (["serve", "--http", "0", "--control", "0", "--until-stdin-closes"], 1, "standard input"),
        (["dev", "/no/such/model.onnx"], 1, "/no/such/model.onnx"),
    ],
)
def test_each_refusal_has_an_exit_code_a_name_and_says_what_is_wrong(
    salver, models, made, arguments, code, says
) -> None:
    given = [argument.format(models=models) for argument in arguments]
    done = salver("--json", *given)
    assert done.code == code, done
    assert done.out == ""
    assert set(done.error) == {"code", "message", "remedy"}
    assert says.format(models=models) in done.error["message"] + done.error["remedy"]
    assert done.error["code"] == "USAGE" if code == 2 else done.error["code"].isupper()
    plain = salver(*given)
    assert plain.code == code
    assert "error: " in plain.err
    assert "Traceback" not in plain.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["deploy", "m", "--max-batch", "0"], "--max-batch is 0"),
        (["deploy", "m", "--max-wait=-1"], "--max-wait is -1.0"),
        (["check", "m@1.0.0", "--rate", "0"], "--rate is 0"),
        (["check", "m@1.0.0", "--duration", "-1"], "--duration is -1"),
        (["retrain", "set", "m", "--command", "x", "--timeout", "0"], "Expected `float` > 0.0 - at --timeout"),
        (["token", "create", "x", "--role", "operator", "--expires-in", "0d"], "--expires-in is 0"),
        (["history", "m@1.0.0"], "model or endpoint name 'm@1.0.0' is not allowed"),
        (["show", "n"], "there is no model 'n'"),
    ],
)
def test_what_was_typed_is_named_and_not_the_field_behind_it(salver, models, arguments, says) -> None:
    assert salver("register", "m", models / "times2.onnx").code == 0
    assert says in salver("--json", *arguments).error["message"]


def test_each_command_answers_wrong_arguments_with_words_and_a_remedy(salver, models, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert salver("register", "m", models / "times2.onnx").code == 0
    refused = 0
    for words, command in COMMANDS.items():
        given = [f"{each.opts[0]}=nosuch" for each in command.params if each.required and each.opts[0][0] == "-"]
        for more in ([], ["nosuch"], ["m@9.9.9"], ["m", "nosuch"], ["--nosuch"]):
            typed = [*words, *given, *more]
            done = salver("--json", *typed)
            assert done.code in (0, 1, 2, 3), typed
            assert "Traceback" not in done.err, typed
            if done.code and not done.out:  # a command that judges ends so with its verdict as well
                refused += 1
                assert done.error["code"] != "INTERNAL", (typed, done.error)
                assert done.error["message"], typed
                assert done.error["remedy"], (typed, done.error)
    assert refused > 3 * len(COMMANDS)


READING = [
    ["models"], ["status"], ["audit"], ["isolated"], ["token", "list"], ["predict", "m"], ["bench", "m"],
    ["package", "m"], ["deploy", "m"], ["undeploy", "m"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_command_that_reads_makes_no_home(salver, home, arguments) -> None:
    done = salver("--json", *arguments)
    assert (done.code, done.error["code"]) == (1, "NOT_FOUND")
    assert str(home) in done.error["message"]
    assert "register" in done.error["remedy"]
    assert not home.exists()


def test_doctor_looks_at_the_machine_where_there_is_no_home_yet(salver, home) -> None:
    done = salver("--json", "doctor")
    assert {"check": "home", "state": "warning"}.items() <= done.json[-1].items()
    assert not home.exists()


def test_a_missing_role_and_a_wrong_choice_list_what_there_is(salver) -> None:
    missing = salver("token", "create", "x")
    assert missing.code == 2
    assert "admin, operator, approver, developer, predictor" in missing.err
    wrong = salver("deploy", "m", "--placement", "gpu")
    assert "'gpu' is not one of 'auto', 'inline', 'thread', 'process'" in wrong.err
    assert "Value error" not in wrong.err


def test_without_a_command_the_help_is_shown(salver) -> None:
    for group in ([], ["token"]):
        done = salver(*group)
        assert done.code == 2
        assert done.err.startswith("Usage: salver")
        assert salver("--json", *group).error["code"] == "USAGE"


def test_a_fault_of_ours_is_one_line_and_a_stack_trace_only_on_request(salver, made, monkeypatch) -> None:
    from salver.registry.catalog import Catalog

    def fail(_self) -> None:
        raise RuntimeError("the first line\nthe second line")

    monkeypatch.setattr(Catalog, "models", fail)
    done = salver("--json", "models")
    assert (done.code, done.out) == (1, "")
    assert done.error["code"] == "INTERNAL"
    assert done.error["message"] == "RuntimeError: the first line"
    monkeypatch.setenv("SALVER_DEBUG", "1")
    done = salver("models")
    assert done.code == 1
    assert "Traceback" in done.err


def test_a_fault_while_a_version_is_judged_has_the_reason_of_the_system(salver, made, monkeypatch) -> None:
    def fail(_path) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("salver.evaluation.suites.scripts.read_suite", fail)
    done = salver("--json", "compare", "m@1.0.1", "m@1.0.0", "--data", "rows.csv", "--suite", "suite.toml")
    assert (done.code, done.error["code"]) == (3, "INTERNAL")
    assert done.error["message"] == "Permission denied: /somewhere"


def test_a_home_that_cannot_be_made_or_read_is_named(salver, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = salver("--json", "models", "--home", tmp_path / "file")
    assert (done.code, done.error["code"]) == (1, "INVALID_SETTING")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    done = salver("--json", "models", "--home", tmp_path / "other")
    assert (done.code, done.error["code"]) == (3, "REFUSED_BY_POLICY")
    done = salver("--json", "token", "create", "x", "--role", "admin", "--home", "/proc/none")
    assert (done.code, done.error["code"]) == (1, "INTERNAL")
    assert "/proc/none" in done.error["message"]


def test_a_reader_that_has_seen_enough_is_no_error_worth_a_word(home) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "salver", "version"], stdout=write_end, stderr=subprocess.PIPE, check=False
    )
    os.close(write_end)
    assert done.returncode == 1
    assert done.stderr == b""


def test_an_interrupted_command_ends_with_130(salver, made, monkeypatch) -> None:
    from salver.registry.catalog import Catalog

    def interrupt(_self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Catalog, "models", interrupt)
    assert salver("models").code == 130


def test_a_full_disk_is_said_to_be_one(salver, made, monkeypatch) -> None:
    import errno

    from salver.registry.catalog import Catalog

    def fail(_self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    monkeypatch.setattr(Catalog, "models", fail)
    assert salver("--json", "models").error["code"] == "STORAGE_FULL"


def test_a_token_that_is_not_heeded_is_said_to_be(salver, made, monkeypatch) -> None:
    assert salver("models").err == ""
    monkeypatch.setenv("SALVER_TOKEN", "slv_of_somebody_else")
    assert "SALVER_TOKEN is not heeded" in salver("models").err
    assert salver("models", "--json").err == ""
