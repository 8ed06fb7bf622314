"""Rows of training among those evaluated: equal, nearly equal, by digest, and prose."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import pytest
from scored import made_subject
from sklearn.datasets import load_breast_cancer

from salver.evaluation.data.duplicates import DuplicateCheck, row_digests
from salver.evaluation.subject.rows import Rows
from salver.evaluation.suites.sections import LeakageSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

X, Y = load_breast_cancer(return_X_y=True)


def table(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {f"f{i}": rows[:, i] for i in range(rows.shape[1])}


def subject(held: np.ndarray, training: np.ndarray | None):
    given = None if training is None else (table(training), np.zeros(len(training), dtype=int))
    return made_subject(table(held), np.arange(len(held)) % 2, lambda rows: np.full(len(rows), 0.5), training=given)


def run(whole, **settings):
    return DuplicateCheck(LeakageSettings(**settings)).run(whole)


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_split_has_none(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(X))
    found = run(subject(X[order[:200]], X[order[200:]]))
    assert (found.verdict, found.numbers["equal"], found.numbers["near"]) == (Verdict.SUCCESSFUL, 0, 0)


def test_rows_that_were_copied_before_the_split_are_found_equal_or_with_a_little_noise() -> None:
    held, training = X[:200].copy(), X[200:]
    held[:10] = training[:10]
    held[10:30] = training[10:30] + 0.004 * X.std(axis=0)
    found = run(subject(held, training))
    assert (found.verdict, found.numbers["equal"], found.numbers["near"]) == (Verdict.FAILED, 10, 20)
    assert found.tables[0].rows[0][:2] == (0, "equal")
    assert run(subject(held, training), duplicates_at_most=0.2).verdict is Verdict.SUCCESSFUL
    assert run(subject(held, training), near=0.0).numbers["near"] == 0


def test_without_training_rows_or_with_few_it_is_inconclusive() -> None:
    assert run(subject(X[:200], None)).verdict is Verdict.INCONCLUSIVE
    assert run(subject(X[:20], X[200:])).verdict is Verdict.INCONCLUSIVE


def test_rows_that_differ_in_a_category_are_not_near(tmp_path) -> None:
    ward, other = np.array(["a"] * 60, dtype=object), np.array(["b"] * 60, dtype=object)
    numbers = np.linspace(0, 1, 60)
    for there, verdict in ((other, Verdict.SUCCESSFUL), (ward, Verdict.FAILED)):
        whole = made_subject(
            {"x": numbers, "ward": ward}, np.arange(60) % 2, lambda rows: np.full(len(rows), 0.5),
            training=({"x": numbers + 1e-6, "ward": there}, np.arange(60) % 2),
        )  # fmt: skip
        assert run(whole).verdict is verdict


def test_digests_stand_for_rows_that_may_not_be_handed_on(tmp_path) -> None:
    held, training = X[:200].copy(), X[200:]
    held[:10] = training[:10]
    whole = subject(held, None)
    names = whole.features
    (tmp_path / "rows.txt").write_text("\n".join(row_digests(Rows(table(training)), names)))
    found = run(whole, training=str(tmp_path / "rows.txt"))
    assert (found.verdict, found.numbers["equal"]) == (Verdict.FAILED, 10)
    (tmp_path / "rows.txt").write_text("nonsense\n")
    with pytest.raises(SalverError, match="holds 'nonsense', no SHA-256"):
        run(whole, training=str(tmp_path / "rows.txt"))
    with pytest.raises(SalverError, match="cannot read the digests"):
        run(whole, training=str(tmp_path / "none.txt"))


def test_a_file_of_training_rows_is_read_whatever_its_kind(tmp_path) -> None:
    held, training = X[:200].copy(), X[200:]
    held[:10] = training[:10]
    frame = pd.DataFrame(table(training))
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame.to_parquet(tmp_path / "train.parquet")
    for name in ("train.csv", "train.parquet"):
        assert run(subject(held, None), training=str(tmp_path / name)).numbers["equal"] == 10


def test_prose_is_alike_whatever_its_case_and_a_word_more() -> None:
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("gra", "mel", "tor", "vis", "pol") for b in ("dine", "sham", "ber", "quit", "os")]
    texts = np.array([" ".join(rng.choice(words, 25)) for _ in range(200)], dtype=object)
    copied = np.array([text.upper() + "!" for text in texts[:10]], dtype=object)

    def whole(there):
        return made_subject(
            {"text": texts[:100]}, np.arange(100) % 2, lambda rows: np.full(len(rows), 0.5),
            training=({"text": there}, np.zeros(len(there), dtype=int)),
        )  # fmt: skip

    assert run(whole(texts[100:])).numbers["share"] == 0
    found = run(whole(np.concatenate([texts[100:], copied])))
    assert (found.verdict, found.numbers["near"]) == (Verdict.FAILED, 10)


def test_a_digest_is_the_same_however_the_number_was_written() -> None:
    one = Rows({"a": np.array([1, 2]), "b": np.array([0.1, np.nan])})
    other = Rows({"a": np.array([1.0, 2.0]), "b": np.array([0.1 + 1e-17, np.nan])})
    assert row_digests(one, ("a", "b")) == row_digests(other, ("a", "b"))
    assert (
        len(
            set(
                row_digests(
                    Rows({"a": np.array(["1|", "1"], dtype=object), "b": np.array(["2", "|2"], dtype=object)}),
                    ("a", "b"),
                )
            )
        )
        == 2
    )
    assert msgspec.structs.asdict(LeakageSettings())["training"] == ""
