"""What the rules of retirement propose: a table of snapshots."""

from __future__ import annotations

import pytest

from salver.protocol.stages import Stage
from salver.registry.retirement_rules import Retiree, RetirementRule, propose
from salver.registry.usage import VersionUse

DAY_S = 86_400.0
NOW_S = 1_000 * DAY_S


def retiree(version: str = "1.0.0", ordinal: int = 1, **given: object) -> Retiree:
    fields = {"digest": "d", "created_s": NOW_S - 100 * DAY_S, "stage": Stage.STAGING}
    return Retiree("digits", version, ordinal, **fields | given)


def asked(days_ago: float) -> tuple[VersionUse, ...]:
    return (VersionUse("digits", "1.0.0", "digits", "shop", 7, 0.0, NOW_S - days_ago * DAY_S),)


OLD = RetirementRule(name="old", older_than_days=90)
UNUSED = RetirementRule(name="unused", unused_days=30)
WORSE = RetirementRule(name="worse", worse_than_production="f1", notice_days=7)
BOTH = RetirementRule(name="both", older_than_days=90, unused_days=30)
BETTER = retiree("2.0.0", 2, stage=Stage.PRODUCTION, metrics={"f1": 0.9})


@pytest.mark.parametrize(
    ("rule", "known", "reason"),
    [
        (OLD, [retiree()], "registered 100 days ago"),
        (OLD, [retiree(created_s=NOW_S - 80 * DAY_S)], None),
        (OLD, [retiree(stage=Stage.PRODUCTION)], None),
        (OLD, [retiree(stage=Stage.ARCHIVED)], None),
        (OLD, [retiree(stage=Stage.REJECTED)], None),
        (OLD, [retiree(held=True)], None),
        (RetirementRule(name="old", older_than_days=90, models="other-*"), [retiree()], None),
        (
            RetirementRule(name="old", older_than_days=90, stages=(Stage.PRODUCTION,)),
            [BETTER],
            "registered 100 days ago",
        ),
        (UNUSED, [retiree()], "never asked"),
        (UNUSED, [retiree(created_s=NOW_S - 10 * DAY_S)], None),
        (UNUSED, [retiree(clients=asked(31))], "last asked 31 days ago"),
        (UNUSED, [retiree(clients=(*asked(31), *asked(2)))], None),
        (BOTH, [retiree(clients=asked(31))], "registered 100 days ago; last asked 31 days ago"),
        (BOTH, [retiree(clients=asked(1))], None),
        (WORSE, [retiree(metrics={"f1": 0.8}), BETTER], "f1 is 0.8; 2.0.0, in production, has 0.9"),
        (WORSE, [retiree(metrics={"f1": 0.9}), BETTER], None),
        (WORSE, [retiree(), BETTER], None),
        (WORSE, [retiree(metrics={"f1": 0.8}), retiree("2.0.0", 2, metrics={"f1": 0.9})], None),
        # What is newer than production is no former version.
        (WORSE, [retiree("3.0.0", 3, metrics={"f1": 0.8}), BETTER], None),
        (
            RetirementRule(name="slow", worse_than_production="latency", higher_is_better=False),
            [retiree(metrics={"latency": 2.0}), retiree("2.0.0", 2, stage=Stage.PRODUCTION, metrics={"latency": 1.0})],
            "latency is 2; 2.0.0, in production, has 1",
        ),
    ],
)
def test_a_version_retires_when_all_conditions_of_a_rule_hold(rule, known, reason) -> None:
    found = propose([rule], known, NOW_S)
    assert [each.reason for each in found] == ([] if reason is None else [reason])
    for each in found:
        assert each.due_s == NOW_S + rule.notice_days * DAY_S


def test_the_first_rule_that_holds_names_the_proposal_and_who_would_miss_it_is_told() -> None:
    known = retiree(clients=asked(31), endpoints=("digits",))
    (found,) = propose([WORSE, UNUSED, OLD], [known], NOW_S)
    assert (found.rule, found.clients, found.endpoints) == ("unused", asked(31), ("digits",))
