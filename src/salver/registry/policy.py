"""The policy of a home: which gates stand before which stage of which models, and when versions retire.

It is one TOML document. What is not said in it is free for whoever may promote at all: a home without a policy has
no gates. The policy in force is the text in the last record `set_policy` of the journal, so it cannot be another one
than the journal says.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.stages import NEAREST_FIRST, OUT, Stage
from salver.registry.gates import AnyGate, ApprovalsGate, EvaluationGate, MetricGate, OperationalGate
from salver.registry.retirement_rules import RetirementRule
from salver.registry.stages import FORWARD, LIFECYCLE, goes_back
from salver.security.access import Operation, Principal, Role, require
from salver.storage.database import Database
from salver.storage.journal import Journal
from salver.storage.schema import journal

__all__ = ["ModelRule", "Policies", "Policy", "PolicyInForce", "TransitionRule", "parse_policy", "warnings_of"]

_MOST_BYTES: Final = 256 * 1024
_SUBJECT: Final = "policy"
_ACTION: Final[JournalAction] = "set_policy"


class ModelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[model]]`: how models with such names are treated; the first that matches a name holds."""

    match: str = "*"
    most_in_production: int = 1
    """Versions of a model in production at one time; the oldest make room. 0 for any number."""
    on_replaced: Literal["staging", "archived"] = "staging"
    """Where a version goes that makes room. From staging it can be deployed again at once."""
    deploy_from: tuple[Stage, ...] | None = None
    """Stages whose versions may be deployed, and no others; archived and rejected ones never are. None for those from
    which production is reached past no gate, with what was in production before, and `shadow_endpoints`."""
    shadow_endpoints: tuple[str, ...] = ("*-shadow",)
    """Endpoints, with wildcards, for versions in shadow: nobody but who tries them asks there."""
    emergency_roles: tuple[Role, ...] = ()
    """Who may promote past the gates, beside administrators."""


class TransitionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[transition]]`: gates before a stage. All rules that match hold together."""

    to: Stage
    models: str = "*"
    sources: tuple[Stage, ...] = msgspec.field(default=(), name="from")
    """Stages from which it holds; none for every way into `to` but those that go back."""
    again: bool = False
    """Asked also of a version that comes back into production, where the others go by their decision of before."""
    gates: tuple[AnyGate, ...] = msgspec.field(default=(), name="gate")

    def holds(self, model: str, source: Stage, target: Stage) -> bool:
        """Whether it is about this way."""
        named = source in self.sources if self.sources else not goes_back(source, target)
        return self.to is target and named and fnmatch.fnmatchcase(model, self.models)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole policy. `Policy()` is what holds where none was set: no gates."""

    models: tuple[ModelRule, ...] = msgspec.field(default=(), name="model")
    transitions: tuple[TransitionRule, ...] = msgspec.field(default=(), name="transition")
    retirements: tuple[RetirementRule, ...] = msgspec.field(default=(), name="retirement")

    def rule_for(self, model: str) -> ModelRule:
        """How a model is treated."""
        return next((rule for rule in self.models if fnmatch.fnmatchcase(model, rule.match)), ModelRule())

    def gates(self, model: str, *ways: tuple[Stage, Stage], returns: bool = False) -> tuple[AnyGate, ...]:
        """The gates on some ways, each once, in the order of the document; of what `returns`, those asked again."""
        rules = (rule for way in ways for rule in self.transitions if rule.holds(model, *way))
        return tuple(dict.fromkeys(gate for rule in rules if rule.again or not returns for gate in rule.gates))

    def deployable(self, model: str) -> tuple[Stage, ...]:
        """The stages whose versions may be deployed: those named, else those not before a gate."""
        named = self.rule_for(model).deploy_from
        return self.past_gates(model) if named is None else named

    def past_gates(self, model: str) -> tuple[Stage, ...]:
        """Production, and the stages from where a version comes there and meets no gate."""
        found = {Stage.PRODUCTION}
        for stage in (each for each in NEAREST_FIRST if each not in OUT):
            ahead = [move for move in LIFECYCLE.moves_from(stage) if move.event in FORWARD and move.target in found]
            if any(not self.gates(model, (stage, move.target)) for move in ahead):
                found.add(stage)
        return tuple(stage for stage in Stage if stage in found)


class PolicyInForce(msgspec.Struct, frozen=True):
    """The policy that holds, and since when. Without one `seq` is 0 and the text empty."""

    text: str = ""
    digest: str = ""
    seq: int = 0
    """The record of the journal that set it."""
    set_by: str = ""
    set_s: float = 0.0
    warnings: tuple[str, ...] = ()
    """See `warnings_of`."""

    @property
    def policy(self) -> Policy:
        """What it says; raises INVALID_SETTING."""
        return parse_policy(self.text)


def parse_policy(text: str) -> Policy:
    """Read a policy strictly; raises INVALID_SETTING naming what is wrong with it."""
    if len(text.encode()) > _MOST_BYTES:
        raise _wrong(f"it has more than {_MOST_BYTES} bytes")
    try:
        policy = msgspec.convert(tomllib.loads(text), Policy)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"it is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from None
    for rule in policy.models:
        _check_model_rule(rule)
    for transition in policy.transitions:
        _check_transition(transition)
    names = [rule.name for rule in policy.retirements]
    for retirement in policy.retirements:
        _check_retirement(retirement, names)
    return policy


def warnings_of(policy: Policy) -> tuple[str, ...]:
    """What a policy permits and its author may not have meant."""
    return (*_authors_word(policy), *_deployed_before_gates(policy))


def _deployed_before_gates(policy: Policy) -> Iterator[str]:
    """Stages that `deploy_from` names though gates stand between them and production."""
    for at, rule in enumerate(policy.models):
        # Which models there are is not known here: whatever both patterns may fit, and no rule before this one takes.
        gated = tuple(
            msgspec.structs.replace(each, models="*")
            for each in policy.transitions
            if _may_meet(each.models, rule.match)
            and not any(fnmatch.fnmatchcase(each.models, other.match) for other in policy.models[:at])
        )
        past = Policy(transitions=gated).past_gates("")
        before = [stage for stage in rule.deploy_from or () if stage not in past]
        if before:
            yield (
                f"deploy_from of {rule.match!r} names {' and '.join(before)}: such versions are deployed though gates "
                "stand between them and production; leave deploy_from out to have gates hold for deployments too"
            )


def _may_meet(one: str, other: str) -> bool:
    """Whether some name may fit both patterns."""
    if fnmatch.fnmatchcase(one, other) or fnmatch.fnmatchcase(other, one):
        return True
    parts = [re.split(r"[*?\[\]]", each) for each in (one, other)]
    if min(map(len, parts)) == 1:
        return False
    (head, *_, tail), (other_head, *_, other_tail) = parts
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def _authors_word(policy: Policy) -> Iterator[str]:
    """Gates that the word of a version's author opens."""
    yield from (
        f"the gate {_named(gate)} before {rule.to} also takes the word of whoever registered the version; "
        'give roles, such as ["operator", "admin"], or recorded_by'
        for rule in policy.transitions
        for gate in rule.gates
        if isinstance(gate, EvaluationGate | OperationalGate | MetricGate)
        and not gate.recorded_by
        and (not gate.roles or Role.DEVELOPER in gate.roles)
    )


def _named(gate: EvaluationGate | OperationalGate | MetricGate) -> str:
    if isinstance(gate, OperationalGate):
        return "operational"
    return f"evaluation {gate.suite!r}" if isinstance(gate, EvaluationGate) else f"metric {gate.metric!r}"


def _check_model_rule(rule: ModelRule) -> None:
    if rule.most_in_production < 0:
        raise _wrong(f"most_in_production of {rule.match!r} is {rule.most_in_production}; 0 is for any number")
    never = OUT.intersection(rule.deploy_from or ())
    if never:
        raise _wrong(f"deploy_from of {rule.match!r} names {min(never)}, whose versions are never deployed")


def _check_transition(rule: TransitionRule) -> None:
    for source in rule.sources:
        if not any((move.source, move.target) == (source, rule.to) for move in LIFECYCLE.moves):
            raise _wrong(f"no version goes from {source} to {rule.to}, so a gate there would never be asked")
    if not rule.sources and all(goes_back(move.source, rule.to) for move in LIFECYCLE.moves if move.target is rule.to):
        raise _wrong(f"only ways back lead to {rule.to}; a gate there stands where `from` names the way")
    if rule.again and rule.to is not Stage.PRODUCTION:
        raise _wrong(f"again is set before {rule.to}; by a decision of before versions come back to production only")
    for gate in rule.gates:
        if isinstance(gate, ApprovalsGate) and not 1 <= gate.count <= 20:
            raise _wrong(f"a gate before {rule.to} asks for {gate.count} approvals; use 1 to 20")
        if isinstance(gate, MetricGate) and not gate.is_bounded:
            raise _wrong(
                f"the gate on metric {gate.metric!r} has no bound; give at_least, at_most or gain_over_production"
            )


def _check_retirement(rule: RetirementRule, names: list[str]) -> None:
    if names.count(rule.name) > 1:
        raise _wrong(f"two retirement rules are called {rule.name!r}")
    if all(each is None for each in (rule.older_than_days, rule.unused_days, rule.worse_than_production)):
        raise _wrong(
            f"retirement {rule.name!r} has no condition; give older_than_days, unused_days or worse_than_production"
        )
    for stage in rule.stages:
        if not any((move.source, move.target) == (stage, Stage.ARCHIVED) for move in LIFECYCLE.moves):
            raise _wrong(f"retirement {rule.name!r} names stage {stage}, from where nothing is archived")
    for name in ("older_than_days", "unused_days", "notice_days"):
        value = getattr(rule, name)
        if value is not None and not 0 <= value <= 36_500:
            raise _wrong(f"{name} of retirement {rule.name!r} is {value:g}; use 0 to 36500")


def _wrong(why: str) -> SalverError:
    return SalverError("INVALID_SETTING", f"the policy is wrong: {why[:400]}", "docs/lifecycle.md lists every setting")


class Policies:
    """The policy of one database."""

    __slots__ = ("_database", "_journal")

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    def set(self, principal: Principal, text: str) -> PolicyInForce:
        """Put a policy in force; the very same text changes nothing. Raises PERMISSION_DENIED, INVALID_SETTING."""
        require(principal, Operation.SET_POLICY)
        parse_policy(text)
        with self._database.begin() as connection:
            before = policy_in_force(connection)
            if before.seq and before.text == text:
                return _with_warnings(before)
            self._journal.append(
                connection,
                actor=principal.name,
                action=_ACTION,
                subject=_SUBJECT,
                details={"text": text, "digest": _digest(text), "digest_before": before.digest},
                before=before.text or None,
                after=text,
            )
            return _with_warnings(policy_in_force(connection))

    def in_force(self) -> PolicyInForce:
        """The policy that holds now."""
        with self._database.read() as connection:
            return _with_warnings(policy_in_force(connection))


def _with_warnings(found: PolicyInForce) -> PolicyInForce:
    try:
        return msgspec.structs.replace(found, warnings=warnings_of(found.policy))
    except SalverError:  # one that an older Salver has set; it is shown all the same
        return found


def policy_in_force(connection: Connection) -> PolicyInForce:
    """`Policies.in_force` within a transaction that is already open."""
    query = (
        select(journal.c.seq, journal.c.at_s, journal.c.actor, journal.c.record)
        .where(journal.c.subject == _SUBJECT, journal.c.action == _ACTION)
        .order_by(journal.c.seq.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return PolicyInForce()
    record: dict[str, Any] = msgspec.json.decode(row.record)
    text = record["details"]["text"]
    return PolicyInForce(text, _digest(text), row.seq, row.actor, row.at_s)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
