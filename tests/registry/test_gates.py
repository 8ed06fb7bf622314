"""Decisions as a table of snapshots: nothing here has a database or a clock."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.stages import Stage
from salver.protocol.verdict import Verdict
from salver.registry.candidate import Approval, Candidate, GateResult, Rival, person_of
from salver.registry.decisions import decide
from salver.registry.evidence import Evaluation
from salver.registry.gates import ApprovalsGate, ChecklistGate, EvaluationGate, MetricGate, OperationalGate
from salver.registry.policy import Policy, TransitionRule
from salver.security.access import Role

DAY_S = 86_400.0
NOW_S = 1_000 * DAY_S
SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR = Verdict


def evaluation(**given: object) -> Evaluation:
    fields = {
        "id": "e1",
        "model": "digits",
        "version": "1.1.0",
        "suite": "release",
        "verdict": SUCCESSFUL,
        "recorded_s": NOW_S - DAY_S,
        "recorded_by": "ci",
        "role": "developer",
        "digest": "d" * 64,
        "data_digest": "holdout",
        "evaluated_rows": 500,
    }
    return Evaluation(**fields | given)


def approval(name: str, role: str = "approver", target: Stage = Stage.PRODUCTION) -> Approval:
    return Approval("digits", "1.1.0", target, name, Role(role), NOW_S - 60)


def candidate(**given: object) -> Candidate:
    fields = {
        "model": "digits",
        "version": "1.1.0",
        "digest": "d" * 64,
        "created_by": "ann",
        "source": Stage.STAGING,
        "target": Stage.PRODUCTION,
        "now_s": NOW_S,
    }
    return Candidate(**fields | given)


RELEASE = EvaluationGate(suite="release", within_days=7, least_rows=100)


@pytest.mark.parametrize(
    ("known", "gate", "verdict", "reason"),
    [
        ([evaluation()], RELEASE, SUCCESSFUL, "e1 is successful"),
        ([evaluation(verdict=FAILED)], RELEASE, FAILED, "e1 is failed"),
        ([evaluation(verdict=INCONCLUSIVE)], RELEASE, INCONCLUSIVE, "e1 is inconclusive"),
        ([evaluation(verdict=ERROR)], RELEASE, ERROR, "e1 is error"),
        ([], RELEASE, INCONCLUSIVE, "nothing that counts is recorded for digits@1.1.0"),
        ([evaluation(suite="other")], RELEASE, INCONCLUSIVE, "nothing that counts"),
        ([evaluation(recorded_s=NOW_S - 8 * DAY_S)], RELEASE, INCONCLUSIVE, "e1 is 8.0 days old; 7 are allowed"),
        ([evaluation(recorded_s=NOW_S + DAY_S)], RELEASE, INCONCLUSIVE, "recorded in the future"),
        ([evaluation(evaluated_rows=99)], RELEASE, INCONCLUSIVE, "e1 looked at 99 rows; 100 are asked for"),
        ([evaluation(digest="e" * 64)], RELEASE, INCONCLUSIVE, "is about the digest eeeeeeeeeeee"),
        ([evaluation(digest="")], RELEASE, INCONCLUSIVE, "does not say which digest"),
        ([evaluation(problem="it cannot be read", verdict=ERROR)], RELEASE, ERROR, "it cannot be read"),
        # The newest counts: what was good once does not outweigh what is bad now.
        ([evaluation(verdict=FAILED), evaluation(id="e0", recorded_s=NOW_S - 2 * DAY_S)], RELEASE, FAILED, "e1"),
        ([evaluation()], EvaluationGate(suite="release", recorded_by=("c*",)), SUCCESSFUL, "e1"),
        (
            [evaluation()],
            EvaluationGate(suite="release", recorded_by=("release-*",)),
            INCONCLUSIVE,
            "nothing that counts",
        ),
        ([evaluation()], EvaluationGate(suite="release", roles=(Role.ADMIN,)), INCONCLUSIVE, "nothing that counts"),
        ([evaluation()], EvaluationGate(suite="release", data_digest="holdout"), SUCCESSFUL, "e1"),
        ([evaluation()], EvaluationGate(suite="release", data_digest="other"), INCONCLUSIVE, "nothing that counts"),
    ],
)
def test_an_evaluation_opens_its_gate_only_when_it_is_sound_recent_enough_and_about_these_bytes(
    known, gate, verdict, reason
) -> None:
    found = gate.examine(candidate(evaluations=tuple(known)))
    assert found.verdict is verdict
    assert reason in found.reasons[0]


def rival(**metrics: float) -> Rival:
    return Rival("1.0.0", "r" * 64, metrics)


@pytest.mark.parametrize(
    ("gate", "metrics", "production", "verdict", "reason"),
    [
        (MetricGate(metric="revenue", at_least=1.2), {"revenue": 1.2}, None, SUCCESSFUL, "revenue is 1.2"),
        (MetricGate(metric="revenue", at_least=1.2), {"revenue": 1.19}, None, FAILED, "1.19, below 1.2"),
        (MetricGate(metric="cost", at_most=3), {"cost": 4.0}, None, FAILED, "4, above 3"),
        (MetricGate(metric="revenue", at_least=1.2), {}, None, INCONCLUSIVE, "not recorded for this version"),
        (MetricGate(metric="revenue", at_least=1.2), {"revenue": float("nan")}, None, FAILED, "nan"),
        (MetricGate(metric="f1", gain_over_production=0.01), {"f1": 0.9}, rival(f1=0.88), SUCCESSFUL, "a gain of 0.02"),
        (MetricGate(metric="f1", gain_over_production=0.01), {"f1": 0.9}, rival(f1=0.9), FAILED, "a gain of 0"),
        (MetricGate(metric="f1", gain_over_production=-0.01), {"f1": 0.895}, rival(f1=0.9), SUCCESSFUL, "-0.005"),
        (
            MetricGate(metric="f1", gain_over_production=0.0),
            {"f1": 0.9},
            rival(),
            INCONCLUSIVE,
            "for 1.0.0, in production",
        ),
        (MetricGate(metric="f1", gain_over_production=0.0), {}, rival(f1=0.9), INCONCLUSIVE, "for this version"),
        (MetricGate(metric="f1", gain_over_production=0.0), {"f1": 0.1}, None, SUCCESSFUL, "nothing ever was"),
        (
            MetricGate(metric="f1", gain_over_production=0.0),
            {"f1": 0.1},
            Rival("1.0.0", "r" * 64, {"f1": 0.9}, left=True),
            FAILED,
            "f1 is 0.1, last in production (1.0.0) 0.9: a gain of -0.8",
        ),
        (
            MetricGate(metric="cost", gain_over_production=1.0, higher_is_better=False),
            {"cost": 4.0},
            rival(cost=5.5),
            SUCCESSFUL,
            "a gain of 1.5",
        ),
        (
            MetricGate(metric="f1", at_least=0.8, gain_over_production=0.1),
            {"f1": 0.9},
            rival(f1=0.88),
            FAILED,
            "a gain of 0.02",
        ),
    ],
)
def test_a_metric_opens_its_gate_within_its_bounds(gate, metrics, production, verdict, reason) -> None:
    found = gate.examine(candidate(metrics=metrics, production=production))
    assert found.verdict is verdict
    assert reason in " ".join(found.reasons)


def test_a_metric_of_a_suite_comes_from_its_newest_evaluation_of_these_bytes() -> None:
    gate = MetricGate(metric="roc_auc", suite="release", at_least=0.9)
    good, bad = evaluation(numbers={"roc_auc": 0.95}), evaluation(id="e2", numbers={"roc_auc": 0.5})
    assert gate.examine(candidate(evaluations=(good, bad))).verdict is SUCCESSFUL
    assert gate.examine(candidate(evaluations=(bad, good))).verdict is FAILED
    assert gate.examine(candidate(evaluations=(evaluation(), good))).verdict is INCONCLUSIVE
    other = evaluation(digest="e" * 64, numbers={"roc_auc": 0.95})
    assert gate.examine(candidate(evaluations=(other,))).verdict is INCONCLUSIVE
    broken = evaluation(problem="it cannot be read")
    assert gate.examine(candidate(evaluations=(broken, good))).verdict is ERROR
    # Of what people say about a version the suite knows nothing.
    assert gate.examine(candidate(metrics={"roc_auc": 0.99})).verdict is INCONCLUSIVE


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ([], INCONCLUSIVE),
        ([approval("bea")], INCONCLUSIVE),
        ([approval("bea"), approval("cem")], SUCCESSFUL),
        ([approval("bea"), approval("bea")], INCONCLUSIVE),
        ([approval("bea"), approval("ann")], INCONCLUSIVE),
        ([approval("bea"), approval("cem", "operator")], INCONCLUSIVE),
        ([approval("bea"), approval("cem", target=Stage.SHADOW)], INCONCLUSIVE),
        ([approval("local:root", "admin"), approval("admin", "admin")], INCONCLUSIVE),
        ([approval("bea"), approval("admin", "admin")], SUCCESSFUL),
    ],
)
def test_two_others_must_agree_and_nobody_counts_twice(given, verdict) -> None:
    assert ApprovalsGate(count=2).examine(candidate(approvals=tuple(given))).verdict is verdict


def test_whoever_owns_the_home_is_one_person_under_all_its_names() -> None:
    assert person_of("local:root") == person_of("local:ann") == person_of("admin")
    assert person_of("bea") != person_of("cem")
    own = candidate(created_by="local:root", approvals=(approval("admin", "admin"),))
    assert ApprovalsGate().examine(own).verdict is INCONCLUSIVE


def test_the_operational_gate_goes_by_what_a_check_measured() -> None:
    numbers = {"cold_start_s": 3.0, "p99_s": 0.02, "asked_rate_per_s": 100.0, "memory_bytes": 5e6}
    known = candidate(evaluations=(evaluation(suite="operational", numbers=numbers),))
    assert OperationalGate().examine(known).verdict is SUCCESSFUL
    wide = OperationalGate(
        cold_start_at_most_s=5, p99_at_most_s=0.1, rate_at_least_per_s=100, memory_at_most_bytes=10**7
    )
    assert wide.examine(known).verdict is SUCCESSFUL
    for narrow in (
        OperationalGate(cold_start_at_most_s=1),
        OperationalGate(p99_at_most_s=0.01),
        OperationalGate(rate_at_least_per_s=200),
        OperationalGate(memory_at_most_bytes=10**6),
    ):
        assert narrow.examine(known).verdict is FAILED
    assert OperationalGate().examine(candidate()).verdict is INCONCLUSIVE
    silent = candidate(evaluations=(evaluation(suite="operational"),))
    assert OperationalGate(p99_at_most_s=1).examine(silent).verdict is INCONCLUSIVE


def test_a_checklist_answers_by_its_name_and_an_unknown_one_is_an_error() -> None:
    ready = GateResult("checklist readiness", SUCCESSFUL, ("all 12 points",))
    known = candidate(checklists={"readiness": ready})
    assert ChecklistGate(name="readiness").examine(known) == ready
    assert ChecklistGate(name="other").examine(known).verdict is ERROR


def test_without_gates_the_way_is_free() -> None:
    assert decide(Policy(), candidate()).verdict is SUCCESSFUL


def rules(*gates: object) -> Policy:
    return Policy(transitions=(TransitionRule(to=Stage.PRODUCTION, gates=gates),))


def test_a_decision_lists_every_gate_with_its_evidence() -> None:
    known = candidate(evaluations=(evaluation(),), approvals=(approval("bea"),), metrics={"revenue": 1.0})
    found = decide(rules(RELEASE, MetricGate(metric="revenue", at_least=1.2), ApprovalsGate()), known)
    assert found.verdict is FAILED
    assert [gate.verdict for gate in found.gates] == [SUCCESSFUL, FAILED, SUCCESSFUL]
    assert [(each.kind, each.id, each.actor) for gate in found.gates for each in gate.evidence] == [
        ("evaluation", "e1", "ci"),
        ("metadata", "revenue", ""),
        ("approval", "bea", "bea"),
    ]
    assert found.reasons == ("metric revenue at least 1.2: revenue is 1, below 1.2",)


GATES = st.sampled_from(
    [
        RELEASE,
        EvaluationGate(suite="other"),
        MetricGate(metric="f1", at_least=0.5),
        MetricGate(metric="f1", at_least=0.99),
        MetricGate(metric="absent", at_most=1),
        ApprovalsGate(),
        ApprovalsGate(count=3),
        OperationalGate(),
        ChecklistGate(name="none"),
    ]
)
CANDIDATES = st.builds(
    candidate,
    evaluations=st.lists(
        st.builds(
            evaluation, verdict=st.sampled_from(list(Verdict)), suite=st.sampled_from(["release", "operational"])
        ),
        max_size=2,
    ).map(tuple),
    approvals=st.lists(st.sampled_from("abc").map(approval), max_size=3).map(tuple),
    metrics=st.dictionaries(st.just("f1"), st.floats(0, 1)),
)


@given(CANDIDATES, st.lists(GATES, max_size=4), GATES)
def test_one_gate_more_never_lets_more_through(known, gates, added) -> None:
    before, after = decide(rules(*gates), known), decide(rules(*gates, added), known)
    if after.verdict is SUCCESSFUL:
        assert before.verdict is SUCCESSFUL
    # Neither does the same as a rule of its own.
    more = msgspec.structs.replace(rules(*gates), transitions=(*rules(*gates).transitions, *rules(added).transitions))
    assert decide(more, known).verdict is after.verdict


def test_a_metric_that_names_whose_word_counts_goes_by_nobody_elses() -> None:
    gate = MetricGate(metric="f1", at_least=0.9, roles=(Role.OPERATOR,), within_days=7)
    authors = evaluation(numbers={"f1": 0.99})
    # What is said of a version, its author can say.
    assert gate.examine(candidate(metrics={"f1": 0.99}, evaluations=(authors,))).verdict is INCONCLUSIVE
    theirs = evaluation(id="e2", role="operator", numbers={"f1": 0.8})
    assert gate.examine(candidate(metrics={"f1": 0.99}, evaluations=(authors, theirs))).verdict is FAILED
    old = evaluation(role="operator", numbers={"f1": 0.99}, recorded_s=NOW_S - 8 * DAY_S)
    assert gate.examine(candidate(evaluations=(old,))).verdict is INCONCLUSIVE


def test_nobody_else_makes_production_look_worse_than_it_is() -> None:
    gate = MetricGate(metric="f1", suite="release", gain_over_production=0.0, recorded_by=("gate",))
    mine = evaluation(recorded_by="gate", numbers={"f1": 0.8})
    forged = evaluation(version="1.0.0", digest="r" * 64, numbers={"f1": 0.1})
    true = evaluation(version="1.0.0", digest="r" * 64, recorded_by="gate", numbers={"f1": 0.9})
    found = gate.examine(candidate(evaluations=(mine,), production=Rival("1.0.0", "r" * 64, {}, (forged, true))))
    assert found.verdict is FAILED
