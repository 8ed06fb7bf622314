"""What a point of the checklist finds, and the words in which most of them say it."""

from __future__ import annotations

from typing import Final

import msgspec

from salver.cards.document import day
from salver.clock import DAY_S
from salver.protocol.verdict import Verdict
from salver.registry.candidate import Evidence
from salver.registry.dossier import Dossier
from salver.registry.evidence import Evaluation

__all__ = [
    "COMPARISON_SUITE",
    "FRESH_DAYS",
    "Found",
    "check_in_evaluations",
    "evidence_of",
    "good",
    "stale",
    "stated",
]

COMPARISON_SUITE: Final = "comparison"
"""Under which `salver compare` records. It says how two versions differ, not how good one is."""
FRESH_DAYS: Final = 30.0
"""How old an evaluation may be. Who wants it fresher has a gate `evaluation` for that."""
_AHEAD_S: Final = 300.0
"""How far in the future evidence may lie: clocks differ."""


class Found(msgspec.Struct, frozen=True):
    """What the evidence says of one point, and what to do where that is not enough."""

    verdict: Verdict
    said: str
    remedy: str = ""
    required: bool = True
    evidence: tuple[Evidence, ...] = ()


def good(said: str, *, required: bool = True, evidence: tuple[Evidence, ...] = ()) -> Found:
    """All is as it should be."""
    return Found(Verdict.SUCCESSFUL, said, "", required, evidence)


def stated(name: str, value: str, field: str, *, required: bool = True) -> Found:
    """Whether somebody has stated something; nothing is wrong with what is not, but nothing is shown either."""
    if value.strip():
        return good(f"{name}: {value.strip()[:200]}", required=required)
    return Found(
        Verdict.INCONCLUSIVE, f"nobody has stated {name}", f'salver describe NAME@VERSION --set {field}="..."', required
    )


def evidence_of(evaluation: Evaluation, *names: str) -> tuple[Evidence, ...]:
    """An evaluation as evidence, with these numbers of it."""
    shown = {name: evaluation.numbers[name] for name in names if name in evaluation.numbers}
    said = f'suite "{evaluation.suite}" {evaluation.verdict}'
    return (Evidence("evaluation", evaluation.id, said, evaluation.recorded_by, evaluation.recorded_s, shown),)


def stale(dossier: Dossier, evaluation: Evaluation) -> str:
    """Why an evaluation is too old to go by, or comes from the future; empty where it is neither."""
    age_s = dossier.at_s - evaluation.recorded_s
    if age_s < -_AHEAD_S:
        return f"{evaluation.id} was recorded in the future ({day(evaluation.recorded_s)}); a clock was wrong"
    if age_s > FRESH_DAYS * DAY_S:
        return f"{evaluation.id} is {age_s / DAY_S:.0f} days old; {FRESH_DAYS:.0f} are fresh"
    return ""


def check_in_evaluations(dossier: Dossier, name: str, missing: str, remedy: str) -> Found:
    """What a check called `name` said in the newest evaluation of any suite that has it. Advised only."""
    for each in dossier.evaluations:
        said = dossier.findings.get(each.id) if each.suite != COMPARISON_SUITE else None
        for check in said.checks if said else ():
            if check.name == name and check.verdict in set(Verdict):
                verdict = Verdict(check.verdict)
                reason = "; ".join(check.reasons[:2]) or f"{name} is {verdict}"
                todo = "" if verdict is Verdict.SUCCESSFUL else "see why: salver card NAME@VERSION"
                return Found(verdict, reason, todo, required=False, evidence=evidence_of(each))
    return Found(Verdict.INCONCLUSIVE, missing, remedy, required=False)
