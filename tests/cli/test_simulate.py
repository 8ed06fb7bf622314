from __future__ import annotations

import pytest

from salver.scaling.simulation import MOST_ARRIVALS

LINE = ["--curve", "1=0.011", "--curve", "8=0.018", "--curve", "32=0.042"]


@pytest.fixture
def deployed(salver, models):
    """An endpoint `double` that no server serves."""
    assert salver("register", "double", models / "times2.onnx").code == 0
    assert salver("deploy", "double", "--max-batch", "32").code == 0
    return salver


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_every_policy_that_can_be_is_shown_with_what_it_would_do(deployed) -> None:
    done = deployed("simulate", "double", *LINE, "--rate", "200", "--duration", "5")
    assert done.code == 0, done.err
    head, *rows = rows_of(done.out)
    assert head == [
        "policy",
        "answered",
        "refused",
        "expired",
        "mean",
        "p50",
        "p99",
        "rows a batch",
        "busy",
        "in time/s",
    ]
    assert [row[0] for row in rows] == ["eager *", "timeout 0.01 s", "hybrid 8 rows or 0.01 s", "predictive"]
    for row in rows:
        assert int(row[1]) == pytest.approx(1000, rel=0.15)
        assert row[2:4] == ["0", "0"]
        assert all(cell.endswith(" ms") for cell in row[4:7])


def test_as_json_it_says_all_that_it_knows(deployed) -> None:
    given = ["--rate", "200", "--duration", "5", "--slo", "0.1", "--arrivals", "constant", "--rows", "2"]
    found = deployed("--json", "simulate", "double", *LINE, *given).json
    assert found["points"] == {"1": 0.011, "8": 0.018, "32": 0.042}
    assert found["requests"] == 1001
    assert [each["policy"] for each in found["outcomes"]] == ["eager", "timeout", "hybrid", "predictive", "deferred"]
    for each in found["outcomes"]:
        assert each["answered"] + each["refused"] + each["expired"] == 1001
        assert each["mean_batch_rows"] >= 2
        assert each["batch_limit"] == 32


def test_only_the_policies_asked_for_are_tried_with_the_settings_asked_for(deployed) -> None:
    given = ["--policy", "timeout", "--policy", "eager", "--max-wait", "0.05", "--max-batch", "4", "--replicas", "2"]
    found = deployed("--json", "simulate", "double", *LINE, "--rate", "40", "--duration", "5", *given).json["outcomes"]
    assert [each["policy"] for each in found] == ["timeout", "eager"]
    assert found[0]["mean_s"] > found[1]["mean_s"] + 0.02
    assert found[0]["batch_limit"] == 4


def test_the_same_seed_gives_the_same_load_and_another_one_another(deployed) -> None:
    def mean_s(*more: str) -> float:
        given = ["--rate", "100", "--duration", "3", "--policy", "eager"]
        return deployed("--json", "simulate", "double", *LINE, *given, *more).json["outcomes"][0]["mean_s"]

    assert mean_s() == mean_s("--seed", "0") != mean_s("--seed", "1")


def test_recorded_arrivals_are_read_from_a_file(deployed, tmp_path) -> None:
    recorded = tmp_path / "arrivals.csv"
    recorded.write_text("1700000000.5\n1700000000.0,3\n1700000000.5,2\n")
    given = ["--recorded", str(recorded), "--policy", "eager"]
    found = deployed("--json", "simulate", "double", *LINE, *given).json
    (outcome,) = found["outcomes"]
    assert (found["requests"], outcome["batches"], outcome["mean_batch_rows"]) == (3, 2, 3.0)
    assert outcome["mean_s"] == pytest.approx(0.013, abs=1e-5)


@pytest.mark.parametrize("written", ["soon", "1.0,many", "1.0,1.5", "", "1.0\n\n2.0"])
def test_a_recording_that_is_none_is_refused_with_its_line(deployed, tmp_path, written: str) -> None:
    recorded = tmp_path / "arrivals.csv"
    recorded.write_text(f"0.0\n{written}\n3.0\n")
    done = deployed("--json", "simulate", "double", *LINE, "--recorded", recorded)
    assert (done.code, done.error["code"]) == (1, "INVALID_ARTIFACT")
    assert "arrivals.csv, line " in done.error["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nothing", "--rate", "5"], "NOT_FOUND", "there is no endpoint 'nothing'; there are double"),
        (["double", "--rate", "5"], "NOT_READY", "pass --curve"),
        (["double", *LINE], "INVALID_PARAMETER", "no load is given"),
        (["double", *LINE, "--rate", "0"], "INVALID_PARAMETER", "--rate is 0"),
        (["double", *LINE, "--rate", "nan"], "INVALID_PARAMETER", "--rate is nan"),
        (["double", *LINE, "--rate", "5", "--duration", "0"], "INVALID_PARAMETER", "--duration is 0"),
        (["double", *LINE, "--rate", "5", "--duration", "1e9"], "INVALID_PARAMETER", "--duration is 1000000000"),
        (["double", *LINE, "--rate", "5", "--rows", "0"], "INVALID_PARAMETER", "--rows 0"),
        (["double", *LINE, "--rate", "5", "--rows", "70000"], "INVALID_PARAMETER", "1 to 65536 rows"),
        (["double", *LINE, "--rate", "100000", "--duration", "3600"], "INVALID_PARAMETER", f"at most {MOST_ARRIVALS}"),
        (["double", "--curve", "8:1", "--rate", "5"], "INVALID_PARAMETER", "--curve is '8:1'"),
        (["double", "--curve", "8=fast", "--rate", "5"], "INVALID_PARAMETER", "--curve is '8=fast'"),
        (["double", "--curve", "0=1", "--rate", "5"], "INVALID_PARAMETER", "no sound point"),
        (["double", "--curve", "1=nan", "--rate", "5"], "INVALID_PARAMETER", "no sound point"),
        (["double", *LINE, "--rate", "5", "--policy", "deferred"], "INVALID_SETTING", "needs an objective"),
        (["double", *LINE, "--rate", "5", "--max-wait", "99"], "INVALID_SETTING", "--max-wait is 99"),
        (["double", *LINE, "--rate", "5", "--replicas", "0"], "INVALID_SETTING", "replicas is 0"),
        (["double", *LINE, "--recorded", "/no/such.csv"], "INVALID_PARAMETER", "/no/such.csv"),
    ],
)
def test_what_cannot_be_simulated_is_refused(deployed, arguments: list[str], code: str, says: str) -> None:
    done = deployed("--json", "simulate", *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.error["code"] == code
    assert says in done.error["message"] + "; " + done.error["remedy"]


def test_what_a_server_has_measured_is_taken_by_default_and_nothing_changes(tree, models) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start()
    before = tree.salver("status")["deployments"]
    curve = tree.endpoint("double")["curve"]
    found = tree.salver("simulate", "double", "--rate", "100", "--duration", "1")
    assert curve
    assert found["points"].keys() == curve.keys()
    assert found["outcomes"][0]["answered"] == found["requests"] > 50
    assert tree.salver("status")["deployments"] == before
