from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from salver.control import origin
from salver.control.checkout import Checkout
from salver.control.origin import Sources, origin_of
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

TABLE = "age,income,name,churned\n30,1.5,ann,0\n40,,ben,1\n50,2.5,cyd,0\n"
TWO = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "customers.csv"
    path.write_text(TABLE)
    return path


def test_nothing_said_and_nothing_found_is_no_description(tmp_path: Path) -> None:
    assert origin_of(tmp_path, Sources(), {}) == (None, None, "")


def test_training_data_are_named_digested_and_measured(table: Path) -> None:
    found = origin_of(table, Sources(table, target="churned"), {"owner": "risk"})
    said = found.description
    assert said.owner == "risk"
    assert (said.training_data.name, said.training_data.rows) == ("customers.csv", 3)
    assert said.training_data.digest == hashlib.sha256(TABLE.encode()).hexdigest()
    profile = found.columns.profile(TWO)
    assert [each.input for each in profile.inputs] == ["x"]
    assert [(each.low, each.high, each.missing) for each in profile.inputs[0].features] == [(30, 50, 0), (1.5, 2.5, 1)]


@pytest.mark.parametrize(
    ("inputs", "lows"),
    [
        ([TensorSpec("x", "FP32", (-1, 2), labels=("income", "age"))], {"x": [1.5, 30]}),
        ([TensorSpec("income", "FP32", (-1,)), TensorSpec("age", "INT64", (-1, 1))], {"income": [1.5], "age": [30]}),
        ([TensorSpec("name", "BYTES", (-1,)), TensorSpec("age", "INT64", (-1,))], {"age": [30]}),
        ([TensorSpec("x", "FP32", (-1, 3))], {"x": [30, 1.5, 0]}),
        ([TensorSpec("x", "FP32", (-1, 2))], {}),
        ([TensorSpec("x", "FP32", (-1, -1))], {}),
        ([TensorSpec("x", "FP32", (-1, 2), labels=("income", "other"))], {}),
        ([TensorSpec("x", "FP32", (-1, 3)), TensorSpec("z", "FP32", (-1, 3))], {}),
    ],
)
def test_columns_become_the_inputs_that_say_so_and_no_others(table: Path, inputs, lows) -> None:
    columns = origin_of(table, Sources(table), {}).columns
    profile = columns.profile(Signature(tuple(inputs), (TensorSpec("y", "FP32", (-1,)),)))
    found = {each.input: [feature.low for feature in each.features] for each in profile.inputs} if profile else {}
    assert found == lows


def test_data_that_are_no_table_have_a_digest_and_the_reason_why_no_more(tmp_path: Path) -> None:
    images = tmp_path / "images.tar"
    images.write_bytes(b"\x00" * 100)
    found = origin_of(tmp_path, Sources(images), {})
    assert found.description.training_data.digest == hashlib.sha256(b"\x00" * 100).hexdigest()
    assert found.columns is None
    assert "no table" in found.unread


def test_infinite_columns_are_no_part_of_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "train.npy"
    np.save(path, np.array([[1.0, 2.0, np.inf], [3.0, 4.0, 5.0]]))
    columns = origin_of(path, Sources(path), {}).columns
    assert list(columns.columns) == ["0", "1"]


@pytest.mark.parametrize("sources", [{"target": "y"}, {"training_data": "missing.csv"}, {"lock": "missing.txt"}])
def test_what_cannot_be_read_is_refused(tmp_path: Path, sources) -> None:
    given = {name: each if name == "target" else tmp_path / each for name, each in sources.items()}
    with pytest.raises(SalverError) as raised:
        origin_of(tmp_path, Sources(**given), {})
    assert raised.value.code == "INVALID_PARAMETER"


def test_a_target_that_is_not_there_is_refused_with_those_that_are(table: Path) -> None:
    with pytest.raises(SalverError, match="'churn'") as raised:
        origin_of(table, Sources(table, target="churn"), {})
    assert "churned" in raised.value.remedy


@pytest.mark.parametrize(("content", "kept"), [(b"numpy==2.0\n", True), (b"#" * 600_000, False), (b"\xff", False)])
def test_a_lock_is_kept_as_text_where_it_can_be_and_its_digest_always(tmp_path: Path, content: bytes, kept) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_bytes(content)
    said = origin_of(tmp_path, Sources(lock=lock), {}).description
    assert bool(said.environment) is kept
    assert said.lock_digest == hashlib.sha256(content).hexdigest()


def test_the_commit_is_that_of_the_artifact_else_of_where_one_works(tmp_path: Path, monkeypatch) -> None:
    checkouts = {tmp_path: Checkout("a" * 40, "", None), Path.cwd(): Checkout("b" * 40, "https://example.com/b", True)}
    monkeypatch.setattr(origin, "checkout_of", checkouts.get)
    assert origin_of(tmp_path, Sources(), {}).description.code_commit == "a" * 40
    said = origin_of(tmp_path / "elsewhere", Sources(), {}).description
    assert (said.code_commit, said.code_repository, said.code_dirty) == ("b" * 40, "https://example.com/b", True)
    assert origin_of(tmp_path, Sources(git=False), {}).description is None


def test_what_was_said_goes_before_what_was_found(table: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(origin, "checkout_of", lambda _: Checkout("a" * 40, "", True))
    lock = tmp_path / "lock.txt"
    lock.write_text("numpy==2.0\n")
    said = {"code_commit": "mine", "training_data": {"name": "customers of May"}, "environment": "pip freeze"}
    found = origin_of(tmp_path, Sources(table, lock=lock), said).description
    assert (found.code_commit, found.code_dirty, found.environment) == ("mine", None, "pip freeze")
    assert found.training_data.name == "customers of May"
    assert found.training_data.rows == 3
