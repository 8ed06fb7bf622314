"""Accuracy under disturbance: what is steady keeps it, what is brittle loses it, and bounds are held by intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scored import made_subject

from salver.evaluation.behaviour.robustness import RobustnessCheck
from salver.evaluation.suites.sections import RobustnessSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict


def subject(rows: int = 300, margin: float = 1.0, width: int = 4, seed: int = 0, sharp: float = 3.0, **more):
    """Two clouds, `margin` apart along the first column from the border; the others say nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    columns = {f"x{i}": rng.normal(size=rows) for i in range(width)}
    columns["x0"] = (2 * y - 1) * (margin + rng.uniform(0, 1, rows))

    def model(asked):
        return 0.5 + 0.5 * np.tanh(sharp * asked.numbers("x0") / 2)

    return made_subject(columns, y, model, seed=seed, **more)


def check(kind: str, *levels: float, **more) -> RobustnessCheck:
    return RobustnessCheck(RobustnessSettings(kind, levels, **more))


def test_noise_that_cannot_cross_the_border_costs_nothing_and_more_does() -> None:
    steady = check("noise", 0.01, 0.1, drop_at_most=0.05).run(subject())
    assert (steady.verdict, steady.numbers["worst"], steady.numbers["clean"]) == (Verdict.SUCCESSFUL, 0.0, 1.0)
    shaken = check("noise", 0.1, 2.0, drop_at_most=0.05).run(subject())
    assert shaken.verdict is Verdict.FAILED
    assert any(reason.startswith("noise 2: loss") for reason in shaken.reasons)
    assert [row[0] for row in shaken.tables[0].rows] == [0.1, 2.0]
    points, allowed = shaken.plots[0].series
    assert points.x == (0.0, 0.1, 2.0)
    assert allowed.y == (0.95, 0.95)


def test_few_rows_are_inconclusive_and_without_a_bound_it_only_reports() -> None:
    assert check("noise", 0.1, drop_at_most=0.05).run(subject(20)).verdict is Verdict.INCONCLUSIVE
    found = check("noise", 3.0).run(subject())
    assert found.verdict is Verdict.SUCCESSFUL
    assert found.reasons[0].endswith("reported only")


def test_with_more_levels_it_takes_more_to_break_a_bound() -> None:
    alone = check("noise", 1.0).run(subject()).tables[0].rows[-1]
    last = check("noise", *[0.01] * 9, 1.0).run(subject()).tables[0].rows[-1]
    assert (alone[2], alone[4]) == (last[2], last[4])
    assert last[3] < alone[3]


def test_noise_that_costs_nothing_is_not_failed_whatever_the_seed() -> None:
    verdicts = [check("noise", drop_at_most=0.1).run(subject(margin=4.0, seed=seed)).verdict for seed in range(20)]
    assert Verdict.FAILED not in verdicts
    assert verdicts.count(Verdict.SUCCESSFUL) == 20


def test_an_adversary_finds_what_noise_does_not() -> None:
    """Twenty columns each move the score a little: noise cancels out, a corner of the box does not."""
    rng = np.random.default_rng(1)
    columns = {f"x{i}": rng.normal(size=200) for i in range(20)}
    total = sum(columns.values())

    def model(asked):
        return 1 / (1 + np.exp(-sum(asked.numbers(f"x{i}") for i in range(20))))

    whole = made_subject(columns, (total > 0).astype(int), model)
    reach = 0.2
    noise = check("noise", reach).run(whole).numbers["worst"]
    found = check("adversarial", 0.05, reach).run(whole)
    assert isinstance(noise, float)
    possible = float(np.mean(np.abs(total) < 20 * reach * np.mean([c.std() for c in columns.values()])))
    assert noise < 0.15
    assert found.numbers["worst"] == pytest.approx(possible, abs=0.06)
    lost = [row[2] for row in found.tables[0].rows]
    assert lost == sorted(lost)


def test_an_adversary_without_probabilities_or_with_refusals_still_finds_the_border() -> None:
    hard = subject(margin=0.0, sharp=1e6, width=2)
    x0 = hard.rows.numbers("x0")
    within = float(np.mean(np.abs(x0) < 0.5 * x0.std()))
    assert check("adversarial", 0.5).run(hard).numbers["worst"] == pytest.approx(within, abs=0.01)

    def refusing(asked):
        if (np.abs(asked.numbers("x")) < 0.005).any():
            raise SalverError("BAD_INPUT", "too near to call")
        return (asked.numbers("x") > 0).astype(float)

    x = np.linspace(-1, 1, 100)
    found = check("adversarial", 0.3, queries=30).run(made_subject({"x": x}, (x > 0).astype(int), refusing))
    assert 0.1 < found.numbers["worst"] < 0.3


def test_a_small_step_changes_a_regression_and_the_loss_is_relative() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    whole = made_subject({"x": x}, x + rng.normal(0, 0.1, 200), lambda rows: rows.numbers("x"), regression=True)
    found = check("noise", 0.001, 1.0, drop_at_most=0.2).run(whole)
    assert found.verdict is Verdict.FAILED
    assert found.numbers["worst"] > 5
    attacked = check("adversarial", 0.1, queries=10).run(whole)
    assert attacked.numbers["worst"] == pytest.approx(0.1 * x.std() / 0.08, rel=0.15)


def test_empty_cells_that_are_refused_are_wrong_answers() -> None:
    found = check("missing", 0.2, columns=("x1",)).run(subject())
    assert found.numbers["refused"] == 0
    broken = check("missing", 0.2, columns=("x0",)).run(subject())
    assert 30 < broken.numbers["refused"] < 90
    assert broken.numbers["worst"] == pytest.approx(broken.numbers["refused"] / 300)


def test_typos_hurt_a_version_that_looks_for_one_word() -> None:
    texts = np.array([f"the {'good' if i % 2 else 'awful'} thing number {i}" for i in range(200)], dtype=object)
    model = lambda rows: np.array([0.9 if "good" in text else 0.1 for text in rows.column("text")])  # noqa: E731
    whole = made_subject({"text": texts}, np.arange(200) % 2, model)
    found = check("typos", 0.05, 0.9, drop_at_most=0.1).run(whole)
    assert found.verdict is Verdict.FAILED
    light, heavy = found.tables[0].rows
    assert light[2] < 0.1 < heavy[2]


def test_whole_numbers_stay_whole_under_attack() -> None:
    seen = []

    def model(rows):
        seen.append(rows.column("n").dtype.kind)
        return (rows.numbers("n") > 50).astype(float)

    n = np.arange(100)
    check("adversarial", 0.1, columns=("n",), queries=10).run(made_subject({"n": n}, (n > 50).astype(int), model))
    assert set(seen) == {"i"}


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [("typos", (), "no feature is of that kind"), ("noise", ("ward",), "column 'ward' is not of that kind")],
)
def test_columns_of_the_wrong_kind_are_named(kind: str, columns: tuple[str, ...], message: str) -> None:
    whole = made_subject(
        {"x": np.arange(9.0), "ward": np.array(["a"] * 9, dtype=object)},
        np.arange(9) % 2,
        lambda r: r.numbers("x") / 9,
        features=("x",),
    )
    with pytest.raises(SalverError, match=message):
        check(kind, 0.1, columns=columns).run(whole)
