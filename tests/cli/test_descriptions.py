from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def digits(salver, models: Path):
    words = ("--tag", "team=vision", "--metric", "auc=0.9", "--set", "owner=me", "--parameter", "depth=3")
    assert salver("register", "times", models / "times2.onnx", *words).code == 0


def test_a_version_is_described_when_it_is_registered_and_later(digits, salver, tmp_path: Path) -> None:
    said = tmp_path / "said.toml"
    said.write_text('intended_use = "tests"\n[training_data]\ndigest = "abc"\n')
    words = ("--description", said, "--set", "training_data.uri=s3://x", "--set", "owner=", "--parameter", "name=deep")
    assert salver("describe", "times@1.0.0", *words).code == 0
    assert salver("--json", "show", "times").json["description"] == {
        "intended_use": "tests",
        "training_data": {"uri": "s3://x", "digest": "abc"},
        "hyperparameters": {"depth": 3, "name": "deep"},
        "metrics": {"auc": 0.9},
    }


def test_what_is_a_number_in_the_description_is_one_on_the_command_line(digits, salver) -> None:
    words = ("training_data.rows=12", "metrics.f1=0.5", "hyperparameters.wide=true", "extra.ticket=71")
    assert salver("describe", "times", *[word for each in words for word in ("--set", each)]).code == 0
    said = salver("--json", "show", "times").json["description"]
    assert (said["training_data"], said["metrics"]["f1"]) == ({"rows": 12}, 0.5)
    assert (said["hyperparameters"]["wide"], said["extra"]) == (True, {"ticket": "71"})
    assert "expected" in salver("describe", "times", "--set", "training_data.rows=many").err.lower()


def test_show_tells_a_person_where_a_version_stands(digits, salver) -> None:
    salver("alias", "set", "times", "champion", "latest")
    shown = salver("show", "times@champion").out
    for part in ("times@1.0.0", "stage       development", "aliases     champion", "team=vision", "owner: me"):
        assert part in shown
    assert "champion  1.0.0" in salver("alias", "list", "times").out
    assert "it was 1.0.0" in salver("alias", "remove", "times", "champion").out


@pytest.mark.parametrize(
    "words",
    [
        ("describe", "times@1.0.0"),
        ("describe", "times@1.0.0", "--metric", "auc=high"),
        ("describe", "times@1.0.0", "--set", "owner"),
        ("describe", "times@1.0.0", "--description", "nothing.toml"),
        ("describe", "times@", "--set", "owner=x"),
        ("tag", "times@1.0.0", "novalue"),
        ("show", "times@nobody"),
        ("alias", "set", "times", "production", "1.0.0"),
    ],
)
def test_what_cannot_be_is_refused_in_words(digits, salver, words) -> None:
    done = salver(*words)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "  try: " in done.err
