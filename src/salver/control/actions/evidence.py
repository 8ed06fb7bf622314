"""Evidence: what evaluations found, recorded and listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from salver.control.action import Action
from salver.registry.evidence import Evaluation, RecordedEvaluation
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "EVALUATIONS", "RECORD_EVALUATION", "NewEvaluation", "OfEvaluations"]


class NewEvaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an evaluation found: a document as `salver evaluate` writes it, or one with suite and verdict at least."""

    model: str
    version: str
    document: dict[str, Any]


class OfEvaluations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the evaluations of a model or one version, the newest first."""

    model: str
    version: str | None = None
    limit: int = 100


def _record(admin: LocalAdministration, asked: NewEvaluation) -> RecordedEvaluation:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.evaluations.record(admin.principal, asked.model, version, asked.document)


def _evaluations(admin: LocalAdministration, asked: OfEvaluations) -> tuple[Evaluation, ...]:
    version = None if asked.version is None else admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.evaluations.of(asked.model, version, max(1, min(asked.limit, 1000)))


RECORD_EVALUATION: Final = Action(
    "POST",
    "/v1/models/{model}/versions/{version}/evaluations",
    Operation.RECORD_EVIDENCE,
    "Record what an evaluation of a version found",
    NewEvaluation,
    RecordedEvaluation,
    _record,
)
EVALUATIONS: Final = Action(
    "GET",
    "/v1/evaluations",
    Operation.READ,
    "What evaluations found",
    OfEvaluations,
    tuple[Evaluation, ...],
    _evaluations,
)
ACTIONS: Final = (RECORD_EVALUATION, EVALUATIONS)
