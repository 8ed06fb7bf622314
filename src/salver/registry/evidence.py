"""Evidence: what evaluations of versions found, recorded once and never changed.

A record is a JSON document. Of it `suite` and `verdict` are required; `digest` (of the version that was judged),
`data_digest`, `data_rows`, `evaluated_rows`, `against`, `numbers` and `checks` (each with a `name` and `numbers`) are
what gates read - these facts are kept beside the document, so that nobody who decides has to parse it - and everything
else is kept as it came. `salver.evaluation.EvaluationRecord` is such a document.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.protocol.verdict import Verdict
from salver.registry.catalog import find_version, require_model
from salver.registry.lineage_rows import note_judged_on
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.journal import Journal, canonical_json
from salver.storage.registry_schema import evaluations

__all__ = ["Evaluation", "Evaluations", "RecordedEvaluation", "evaluation_of", "evaluations_of"]

MOST_BYTES: Final = 4 * 2**20
MOST_NUMBERS: Final = 5000
_MOST_NUMBERS_BYTES: Final = 256 * 2**10
"""Of one record: every promotion reads those of the newest records."""
_MOST: Final = 1000
"""Evaluations of one version that are looked at, the newest."""
_Rows = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_ID_LENGTH: Final = 16
_ABOUT: Final = ("digest", "data_digest", "against")
"""Columns that say what an evaluation is about."""


class _Against(msgspec.Struct, frozen=True):
    model: str
    version: str


class _Check(msgspec.Struct, frozen=True):
    name: str
    numbers: dict[str, str | int | float | None] = {}


class _Document(msgspec.Struct, frozen=True):
    """What gates read of a record."""

    suite: str
    verdict: Verdict
    digest: str = ""
    against: _Against | None = None
    data_digest: str = ""
    data_rows: _Rows = 0
    evaluated_rows: _Rows = 0
    numbers: dict[str, str | int | float | None] = {}
    checks: tuple[_Check, ...] = ()

    def measured(self) -> dict[str, float]:
        """Every number under its name; those of checks as CHECK.NAME, and a check's `value` as CHECK too."""
        found: dict[str, str | int | float | None] = {}
        for check in self.checks:
            for name, value in check.numbers.items():
                found[f"{check.name}.{name}"] = value
                if name == "value":
                    found[check.name] = value
        found |= self.numbers
        return {
            name: float(value)
            for name, value in found.items()
            if isinstance(value, int | float) and abs(value) <= sys.float_info.max
        }


class Evaluation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recorded evaluation, as gates see it."""

    id: str
    model: str
    version: str
    suite: str
    verdict: Verdict
    recorded_s: float
    recorded_by: str
    role: str
    """That the recorder had."""
    digest: str = ""
    """Of the version that was judged, as the record says; empty where it does not say."""
    data_digest: str = ""
    data_rows: int = 0
    evaluated_rows: int = 0
    """Of these the ones that were judged; all, where the record does not say."""
    against: str = ""
    """The version it was compared with, NAME@VERSION."""
    numbers: dict[str, float] = {}
    problem: str = ""
    """Why it cannot be read; its verdict is then `error`."""


class RecordedEvaluation(msgspec.Struct, frozen=True):
    """The answer to a recording; `created` is false when the very same record was there."""

    evaluation: Evaluation
    created: bool


class Evaluations:
    """The evaluations in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def record(self, principal: Principal, model: str, version: str, document: Mapping[str, Any]) -> RecordedEvaluation:
        """Record what an evaluation found.

        What the same principal has recorded already, as the newest of its suite, is the same record. Where something
        else was found in between, what is found again is a record of its own.

        Raises PERMISSION_DENIED, NOT_FOUND, INVALID_PARAMETER for a document without suite or verdict or too large,
        and CONFLICT for one about other bytes than those of this version.
        """
        require(principal, Operation.RECORD_EVIDENCE)
        read = _checked(document)
        text = canonical_json(document)
        given = {
            "model": model,
            "version": version,
            "suite": read.suite,
            "recorded_s": self._clock.wall_s(),
            "recorded_by": principal.name,
            "role": principal.role.value,
        }
        with self._database.begin() as connection:
            _require_same_bytes(find_version(connection, model, version), read)
            of_suite = _query(model, version, evaluations.c.document).where(evaluations.c.suite == read.suite)
            newest = connection.execute(of_suite.limit(1)).one_or_none()
            if newest is not None and (newest.document, newest.recorded_by, newest.role) == (
                text,
                given["recorded_by"],
                given["role"],
            ):
                return RecordedEvaluation(_evaluation(newest), False)
            identity = _free_id(connection, model, version, text)
            recorded = self._journal.append(
                connection,
                actor=principal.name,
                action="record_evaluation",
                subject=f"{model}@{version}",
                details={"id": identity, "suite": read.suite, "verdict": read.verdict.value},
                after=document,
            )
            given |= {"id": identity, "seq": recorded.seq, "document": text}
            connection.execute(insert(evaluations).values(given | _columns(read)))
            note_judged_on(connection, model, version, read.data_digest)
            made = evaluation_of(connection, model, identity, version)
        assert made is not None
        return RecordedEvaluation(made, True)

    def of(self, model: str, version: str | None = None, limit: int = _MOST) -> tuple[Evaluation, ...]:
        """The evaluations of a model or of one version, the newest first. NOT_FOUND for an unknown one."""
        with self._database.read() as connection:
            if version is None:
                require_model(connection, model)
            else:
                find_version(connection, model, version)
            rows = connection.execute(_query(model, version).limit(limit))
            return tuple(_evaluation(row) for row in rows)


def evaluations_of(
    connection: Connection, model: str, version: str, suites: Collection[str] | None = None
) -> tuple[Evaluation, ...]:
    """What counts of a version's evaluations, the newest first; of all suites, or of some.

    Of what one recorder found with one suite on the same data against the same version that is the newest alone: an
    older one does not stand in for what the newest does not say.
    """
    if suites is not None and not suites:
        return ()
    of_version = (evaluations.c.model == model) & (evaluations.c.version == version)
    if suites is not None:
        of_version &= evaluations.c.suite.in_(suites)
    alike = [getattr(evaluations.c, name) for name in ("suite", "recorded_by", "role", *_ABOUT)]
    newest = select(func.max(evaluations.c.seq)).where(of_version).group_by(*alike)
    query = _query(model, version).where(evaluations.c.seq.in_(newest))
    return tuple(_evaluation(row) for row in connection.execute(query.limit(_MOST)))


def evaluation_of(connection: Connection, model: str, identity: str, version: str | None = None) -> Evaluation | None:
    """The evaluation of this id; without a version the newest, where several have the same."""
    row = connection.execute(_query(model, version).where(evaluations.c.id == identity).limit(1)).one_or_none()
    return None if row is None else _evaluation(row)


def _query(model: str, version: str | None, *more: Any) -> Any:
    """The newest first, and without their documents."""
    columns = (column for column in evaluations.c if column.name != "document")
    query = select(*columns, *more).where(evaluations.c.model == model)
    if version is not None:
        query = query.where(evaluations.c.version == version)
    return query.order_by(evaluations.c.seq.desc())


def _free_id(connection: Connection, model: str, version: str, document: str) -> str:
    """The beginning of the document's digest; of a document that is there already, of the digest with a number."""
    of_version = (evaluations.c.model == model) & (evaluations.c.version == version)
    known = set(connection.execute(select(evaluations.c.id).where(of_version)).scalars())
    for number in range(len(known) + 1):
        salted = f"{document}\n{number}" if number else document
        identity = hashlib.sha256(salted.encode()).hexdigest()[:_ID_LENGTH]
        if identity not in known:
            return identity
    raise AssertionError("more ids than evaluations")


def _checked(document: Mapping[str, Any]) -> _Document:
    remedy = 'write a JSON object with "suite" and "verdict" (successful, failed, inconclusive, error)'
    try:
        size = len(canonical_json(document))
        read = msgspec.convert(document, _Document)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise SalverError("INVALID_PARAMETER", f"the evaluation cannot be read: {str(error)[:300]}", remedy) from None
    if size > MOST_BYTES:
        raise SalverError(
            "INVALID_PARAMETER", f"the evaluation has {size} characters", f"record at most {MOST_BYTES} without plots"
        )
    count = len(read.numbers) + sum(len(check.numbers) for check in read.checks)
    if count > MOST_NUMBERS:
        raise SalverError("INVALID_PARAMETER", f"the evaluation has {count} numbers", f"record at most {MOST_NUMBERS}")
    numbers_bytes = len(msgspec.json.encode(read.measured()))
    if numbers_bytes > _MOST_NUMBERS_BYTES:
        raise SalverError(
            "INVALID_PARAMETER",
            f"the numbers of the evaluation have {numbers_bytes} bytes with their names",
            f"record at most {_MOST_NUMBERS_BYTES}",
        )
    if not read.suite or len(read.suite) > 200:
        raise SalverError("INVALID_PARAMETER", f"the evaluation is of suite {read.suite[:40]!r}", remedy)
    return read


def _require_same_bytes(manifest: VersionManifest, read: _Document) -> None:
    if read.digest and read.digest != manifest.digest:
        raise SalverError(
            "CONFLICT",
            f"the evaluation is about digest {read.digest[:12]}; {manifest.reference} has {manifest.digest[:12]}",
            "evaluate the version that is registered under this number",
        )


def _columns(read: _Document) -> dict[str, Any]:
    """What is kept beside the document."""
    return {
        "verdict": read.verdict.value,
        "digest": read.digest,
        "data_digest": read.data_digest,
        "data_rows": read.data_rows,
        "evaluated_rows": read.evaluated_rows or read.data_rows,
        "against": f"{read.against.model}@{read.against.version}" if read.against else "",
        "numbers": canonical_json(read.measured()),
    }


def _evaluation(row: Row[Any]) -> Evaluation:
    names = ("id", "model", "version", "suite", "recorded_s", "recorded_by", "role", *_ABOUT)
    given: dict[str, Any] = {name: getattr(row, name) for name in names}
    try:
        verdict, numbers = Verdict(row.verdict), msgspec.json.decode(row.numbers, type=dict[str, float])
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        return Evaluation(**given, verdict=Verdict.ERROR, problem=f"it cannot be read: {error}")
    return Evaluation(
        **given, verdict=verdict, data_rows=row.data_rows, evaluated_rows=row.evaluated_rows, numbers=numbers
    )
