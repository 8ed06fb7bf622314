"""What the registry knows of retraining: which verdicts call for it, and the runs with what became of them.

Hooks themselves are of the machine (`salver.control.retraining_hooks`); their setting and each run are on the journal.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Connection, insert, select, update

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.stages import Stage
from salver.registry.catalog import find_version, require_model
from salver.registry.evidence import Evaluation, evaluation_of, evaluations_of
from salver.registry.in_use import endpoints_of, in_production
from salver.registry.retraining_runs import BEGIN, END, RetrainingState, state_of
from salver.registry.stages import VersionStage, stage_of
from salver.security.access import Operation, Principal, require
from salver.security.redaction import redacted, redacted_words
from salver.storage.database import Database
from salver.storage.journal import Journal, JournalRecord, read_records, with_previous
from salver.storage.registry_schema import change_positions
from salver.storage.schema import journal, journal_head

__all__ = ["Retrainings", "RunEnd", "RunStart"]

_POSITION: Final = ":retraining"
"""Whose position it is; no webhook can be called so."""
_SET: Final[JournalAction] = "set_retraining"
_PAGE: Final = 200
_LONGEST_TEXT: Final = 1000


class RunStart(msgspec.Struct, frozen=True):
    """A run that begins, and what its command is told."""

    run: int
    """Its number: that of its record in the journal."""
    model: str
    version: str = ""
    """The one that was judged; empty where nothing is in production."""
    stage: str = ""
    digest: str = ""
    evaluation: Evaluation | None = None
    why: str = ""


class RunEnd(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What became of a run."""

    model: str
    run: int
    version: Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)] = ""
    """The one that it made; empty where it failed."""
    created: bool = False
    """Whether that is a new one."""
    problem: Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)] = ""
    duration_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Retrainings:
    """The retraining of one database's models."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def announce(self, principal: Principal, model: str, hook: dict[str, Any] | None) -> bool:
        """Record which hook a model has now, if the journal does not say so already; whether it did not.

        What looks like a secret in its command is left out.
        """
        require(principal, Operation.SET_POLICY)
        with self._database.begin() as connection:
            before = _newest(connection, model, _SET)
            known = before.details.get("hook") if before else None
            if hook is not None:
                hook = hook | {"command": list(redacted_words(hook["command"]))}
            if known == hook:
                return False
            self._journal.append(
                connection,
                actor=principal.name,
                action=_SET,
                subject=model,
                details={"hook": hook},
                before=known,
                after=hook,
            )
        return True

    def begin(
        self, principal: Principal, model: str, cool_down_s: float, evaluation: str | None = None, why: str = ""
    ) -> RunStart:
        """Record that a run begins: for an evaluation by its id, or the newest of what is in production.

        CONFLICT while the model rests from the last one (see `retraining_runs`); NOT_FOUND for an unknown model or
        evaluation.
        """
        require(principal, Operation.OPERATE)
        with self._database.begin() as connection:
            _require_rested(state_of(connection, model, cool_down_s), self._clock.wall_s())
            here, found = _judged(connection, model, evaluation)
            details: dict[str, Any] = {"version": here.version if here else ""}
            if found is not None:
                details |= {"evaluation": found.id, "suite": found.suite, "verdict": found.verdict.value}
            record = self._journal.append(
                connection, actor=principal.name, action=BEGIN, subject=model, details=details
            )
            if here is None:
                return RunStart(record.seq, model, why=why or record.why)
            digest = find_version(connection, model, here.version).digest
            return RunStart(record.seq, model, here.version, here.stage, digest, found, why or record.why)

    def state(self, model: str, cool_down_s: float) -> RetrainingState:
        """How the retraining of a model stands, whose hook rests for `cool_down_s`. The caller checks READ."""
        with self._database.read() as connection:
            return state_of(connection, model, cool_down_s)

    def end(self, principal: Principal, ended: RunEnd) -> RunEnd:
        """Record what became of a run, without what looks like a secret."""
        require(principal, Operation.OPERATE)
        ended = msgspec.structs.replace(ended, problem=redacted(ended.problem))
        with self._database.begin() as connection:
            begun = select(journal.c.seq).where(
                journal.c.seq == ended.run, journal.c.action == BEGIN, journal.c.subject == ended.model
            )
            if connection.execute(begun).scalar_one_or_none() is None:
                raise SalverError("NOT_FOUND", f"there is no run {ended.run} of {ended.model!r}")
            details = {name: value for name, value in msgspec.to_builtins(ended).items() if name != "model"}
            self._journal.append(connection, actor=principal.name, action=END, subject=ended.model, details=details)
        return ended

    def calling(self) -> tuple[Evaluation, ...]:
        """The evaluations of versions in use that were recorded since the last call; none is given twice.

        The first look at a journal finds nothing: what was judged before is past. Whoever is killed behind a call
        has missed what it gave, and the next verdict calls again.
        """
        with self._database.read() as connection:
            position = _position(connection)
            head = int(connection.execute(select(journal_head.c.seq)).scalar_one())
            if position == head:
                return ()
            records: tuple[JournalRecord, ...] = ()
            if position is not None:
                statement = with_previous().where(journal.c.seq > position, journal.c.action == "record_evaluation")
                records = read_records(connection, statement.order_by(journal.c.seq).limit(_PAGE))
            found = [_in_use(connection, record) for record in records]
        self._go_on(records[-1].seq if len(records) == _PAGE else head)
        return tuple(each for each in found if each is not None)

    def _go_on(self, seq: int) -> None:
        with self._database.begin() as connection:
            here = change_positions.c.webhook == _POSITION
            if connection.execute(update(change_positions).where(here).values(seq=seq)).rowcount == 0:
                connection.execute(insert(change_positions).values(webhook=_POSITION, seq=seq))


def _require_rested(state: RetrainingState, now_s: float) -> None:
    # A clock that was set back behind the last run must not make the rest longer.
    if not state.begun_s <= now_s < state.rests_until_s:
        return
    left_s = state.rests_until_s - now_s
    what = f"made {state.version}" if state.version else f"failed: {state.problem}"
    raise SalverError(
        "CONFLICT",
        f"{state.model!r} rests for {left_s:.0f} s more: run {state.run} {what}",
        f"wait, or run it all the same: salver retrain run {state.model} --now",
    )


def _position(connection: Connection) -> int | None:
    found: int | None = connection.execute(
        select(change_positions.c.seq).where(change_positions.c.webhook == _POSITION)
    ).scalar_one_or_none()
    return found


def _newest(connection: Connection, model: str, action: str) -> JournalRecord | None:
    statement = with_previous().where(journal.c.subject == model, journal.c.action == action)
    return next(iter(read_records(connection, statement.order_by(journal.c.seq.desc()).limit(1))), None)


def _judged(
    connection: Connection, model: str, evaluation: str | None
) -> tuple[VersionStage | None, Evaluation | None]:
    """The version that a run is about, and the evaluation that calls for it."""
    require_model(connection, model)
    if evaluation is None:
        here = next(iter(reversed(in_production(connection, model))), None)
        known = evaluations_of(connection, model, here.version) if here else ()
        return here, known[0] if known else None
    found = evaluation_of(connection, model, evaluation)
    if found is None:
        raise SalverError(
            "NOT_FOUND", f"{model!r} has no evaluation {evaluation[:40]!r}", f"salver evaluations {model}"
        )
    return stage_of(connection, model, found.version), found


def _in_use(connection: Connection, record: JournalRecord) -> Evaluation | None:
    """The evaluation that a record is about, if its version is in production or deployed."""
    model, _, version = record.subject.partition("@")
    here = stage_of(connection, model, version)
    if here.stage is not Stage.PRODUCTION and not endpoints_of(connection, here):
        return None
    return evaluation_of(connection, model, str(record.details.get("id")), version)
