from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.verdict import Judgement, Verdict

SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR = Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR
verdicts = st.lists(st.sampled_from(list(Verdict)), max_size=6)


@pytest.mark.parametrize("pair", list(itertools.combinations((ERROR, FAILED, INCONCLUSIVE, SUCCESSFUL), 2)))
def test_error_outweighs_failed_outweighs_inconclusive_outweighs_successful(pair: tuple[Verdict, Verdict]) -> None:
    assert Verdict.worst(pair) is pair[0]
    assert Verdict.worst(pair[::-1]) is pair[0]


@given(verdicts, verdicts)
def test_verdicts_may_be_put_together_in_steps(first: list[Verdict], second: list[Verdict]) -> None:
    steps = [Verdict.worst(part) for part in (first, second) if part]
    assert Verdict.worst(steps) is Verdict.worst(first + second)


def test_nothing_judged_is_inconclusive() -> None:
    assert Verdict.worst([]) is INCONCLUSIVE
    assert Judgement.together([]) == Judgement(INCONCLUSIVE, ("nothing was judged",))


def test_the_reasons_of_what_did_not_succeed_stand_worst_first_and_once() -> None:
    together = Judgement.together(
        [
            Judgement(SUCCESSFUL, ("fine",)),
            Judgement(INCONCLUSIVE, ("few rows", "odd")),
            Judgement(ERROR, ("no data", "odd")),
            Judgement(FAILED, ("low",)),
        ]
    )
    assert together == Judgement(ERROR, ("no data", "odd", "low", "few rows"))


def test_reasons_are_kept_when_all_succeed() -> None:
    fine = [Judgement(SUCCESSFUL, ("a",)), Judgement(SUCCESSFUL, ("b",))]
    assert Judgement.together(fine) == Judgement(SUCCESSFUL, ("a", "b"))


def test_a_judgement_survives_json() -> None:
    judgement = Judgement(INCONCLUSIVE, ("three rows are too few",))
    encoded = msgspec.json.encode(judgement)
    assert encoded == b'{"verdict":"inconclusive","reasons":["three rows are too few"]}'
    assert msgspec.json.decode(encoded, type=Judgement) == judgement
