"""The rules by which versions retire, and which versions they name: those that are old, unused or surpassed.

What is proposed is a pure function of the rules and a snapshot. Held versions are never proposed, deployed ones never
archived, and nothing is ever deleted: an archived version can be revived. What becomes of a proposal stands in
`salver.registry.retirements`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

import msgspec

from salver.clock import DAY_S
from salver.protocol.stages import OUT, Stage
from salver.registry.evidence import Evaluation
from salver.registry.gates import MetricGate
from salver.registry.usage import VersionUse

__all__ = ["Proposal", "Retiree", "RetirementRule", "propose"]


class RetirementRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[retirement]]`: when versions are proposed for the archive. Of the conditions given all must hold."""

    name: str
    models: str = "*"
    stages: tuple[Stage, ...] = (Stage.DEVELOPMENT, Stage.VALIDATION, Stage.STAGING, Stage.SHADOW)
    older_than_days: float | None = None
    """Since its registration."""
    unused_days: float | None = None
    """Since anybody asked it, or since its registration where nobody did."""
    worse_than_production: str | None = None
    """A metric in which a newer version, in production, is better."""
    suite: str = ""
    """Whose newest evaluation has that metric; empty: as for the gate `metric`."""
    higher_is_better: bool = True
    notice_days: float = 30.0
    """From the proposal to the archive."""


class Retiree(msgspec.Struct, frozen=True):
    """A version as a rule sees it, of one moment."""

    model: str
    version: str
    ordinal: int
    digest: str
    created_s: float
    stage: Stage
    held: bool = False
    endpoints: tuple[str, ...] = ()
    clients: tuple[VersionUse, ...] = ()
    metrics: dict[str, float] = {}
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def last_asked_s(self) -> float | None:
        """When anybody asked it last."""
        return max((each.last_s for each in self.clients), default=None)


class Proposal(msgspec.Struct, frozen=True):
    """That a version is to be archived: by which rule, why, and from when on."""

    model: str
    version: str
    rule: str
    reason: str
    proposed_s: float
    due_s: float
    proposed_by: str = ""
    clients: tuple[VersionUse, ...] = ()
    """Who would miss it."""
    endpoints: tuple[str, ...] = ()
    """Where it is deployed: while it is, it is not archived."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


def propose(rules: Iterable[RetirementRule], known: Iterable[Retiree], now_s: float) -> tuple[Proposal, ...]:
    """The versions that the rules retire, each by the first rule that all holds of. Pure.

    `known` are all versions, those in production among them: others are compared with them.
    """
    everything = tuple(known)
    rules = tuple(rules)
    found = []
    for each in everything:
        if each.held or each.stage in OUT:
            continue
        for rule in rules:
            reason = _reason(rule, each, everything, now_s)
            if reason:
                due_s = now_s + rule.notice_days * DAY_S
                found.append(
                    Proposal(
                        each.model,
                        each.version,
                        rule.name,
                        reason,
                        now_s,
                        due_s,
                        clients=each.clients,
                        endpoints=each.endpoints,
                    )
                )
                break
    return tuple(found)


def _reason(rule: RetirementRule, each: Retiree, known: tuple[Retiree, ...], now_s: float) -> str:
    """Why the rule retires a version; empty where one of its conditions does not hold."""
    if each.stage not in rule.stages or not fnmatch.fnmatchcase(each.model, rule.models):
        return ""
    reasons = []
    if rule.older_than_days is not None:
        age_days = (now_s - each.created_s) / DAY_S
        reasons.append(f"registered {age_days:.0f} days ago" if age_days > rule.older_than_days else "")
    if rule.unused_days is not None:
        reasons.append(_unused(rule.unused_days, each, now_s))
    if rule.worse_than_production is not None:
        reasons.append(_surpassed(rule, each, known))
    return "; ".join(reasons) if all(reasons) else ""


def _unused(days: float, each: Retiree, now_s: float) -> str:
    last_s = each.last_asked_s
    if (now_s - (each.created_s if last_s is None else max(last_s, each.created_s))) / DAY_S <= days:
        return ""
    return "never asked" if last_s is None else f"last asked {(now_s - last_s) / DAY_S:.0f} days ago"


def _surpassed(rule: RetirementRule, each: Retiree, known: tuple[Retiree, ...]) -> str:
    assert rule.worse_than_production is not None
    measure = MetricGate(metric=rule.worse_than_production, suite=rule.suite)
    ours, _ = measure.value_of(each.metrics, each.evaluations, each.digest)
    for other in known:
        newer = other.model == each.model and other.ordinal > each.ordinal and other.stage is Stage.PRODUCTION
        theirs, _ = measure.value_of(other.metrics, other.evaluations, other.digest) if newer else (None, ())
        if ours is None or theirs is None:
            continue
        if (ours < theirs) if rule.higher_is_better else (ours > theirs):
            return f"{rule.worse_than_production} is {ours:g}; {other.version}, in production, has {theirs:g}"
    return ""
