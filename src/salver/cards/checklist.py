"""The readiness checklist: is everything there that a version needs before people rely on it?

Each point is a pure function of the dossier and gives one of four verdicts, with what to do. Points that are required
decide together; those that are advised never stand in the way. A point that cannot be looked at because this Salver has
no such thing yet says just that, and is advised only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from salver.cards.card import warnings_of
from salver.cards.document import Document, Grid, Section
from salver.cards.points import Found
from salver.cards.proof_points import COMPATIBILITY, GOVERNANCE, PACKAGING, REGISTRY
from salver.cards.service_points import INFRASTRUCTURE, MONITORING, PERFORMANCE, ROLLBACK
from salver.protocol.verdict import Judgement, Verdict
from salver.registry.candidate import Evidence
from salver.registry.dossier import Dossier

__all__ = ["Checklist", "Group", "Point", "checklist", "checklist_document", "judged"]


class Group(enum.StrEnum):
    """What a point is about."""

    PACKAGING = "packaging"
    REGISTRY = "registry"
    INFRASTRUCTURE = "infrastructure"
    API = "api"
    PERFORMANCE = "performance"
    MONITORING = "monitoring"
    ROLLBACK = "rollback"
    GOVERNANCE = "governance"


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """One point of the list, and what the evidence says of it."""

    group: Group
    name: str
    verdict: Verdict
    said: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""
    required: bool = True
    evidence: tuple[Evidence, ...] = ()


class Checklist(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole list about one version."""

    model: str
    version: str
    digest: str
    at_s: float
    verdict: Verdict
    """Of the points that are required."""
    reasons: tuple[str, ...]
    points: tuple[Point, ...]
    warnings: tuple[str, ...] = ()
    """What nobody may overlook, whatever was asked."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


_POINTS: Final[dict[Group, dict[str, Callable[[Dossier], Found]]]] = {
    Group.PACKAGING: PACKAGING,
    Group.REGISTRY: REGISTRY,
    Group.INFRASTRUCTURE: INFRASTRUCTURE,
    Group.API: COMPATIBILITY,
    Group.PERFORMANCE: PERFORMANCE,
    Group.MONITORING: MONITORING,
    Group.ROLLBACK: ROLLBACK,
    Group.GOVERNANCE: GOVERNANCE,
}


def checklist(dossier: Dossier, groups: Iterable[Group] = tuple(Group)) -> Checklist:
    """Look at every point of these groups. Pure."""
    points = tuple(
        Point(group, name, found.verdict, found.said, _addressed(found.remedy, dossier), found.required, found.evidence)
        for group in groups
        for name, look in _POINTS[group].items()
        for found in (look(dossier),)
    )
    together = judged(points)
    manifest = dossier.manifest
    return Checklist(
        manifest.model,
        manifest.version,
        manifest.digest,
        dossier.at_s,
        together.verdict,
        together.reasons,
        points,
        warnings_of(dossier),
    )


def _addressed(remedy: str, dossier: Dossier) -> str:
    """What to do, with the name of the version, so that it can be copied."""
    return remedy.replace("NAME@VERSION", dossier.manifest.reference).replace("NAME", dossier.manifest.model)


def judged(points: Iterable[Point]) -> Judgement:
    """The verdict of all required points together, and the reasons of those that are not successful."""
    required = [each for each in points if each.required]
    together = Judgement.together(Judgement(each.verdict, (f"{each.name}: {each.said}",)) for each in required)
    if together.verdict is Verdict.SUCCESSFUL:
        return Judgement(together.verdict, (f"all {len(required)} required points",))
    return together


def checklist_document(found: Checklist) -> Document:
    """The list as a page."""
    done = sum(each.verdict is Verdict.SUCCESSFUL for each in found.points if each.required)
    required = sum(each.required for each in found.points)
    advised = [each for each in found.points if not each.required]
    met = sum(each.verdict is Verdict.SUCCESSFUL for each in advised)
    head = Section(
        "Summary",
        (f"{done} of {required} required points and {met} of {len(advised)} advised ones are successful.",),
        tables=_open(found.points),
    )
    columns = ("point", "verdict", "asked", "what the evidence says", "what to do")
    groups = tuple(
        Section(
            str(group).capitalize() if group is not Group.API else "API",
            tables=(Grid("", columns, tuple(_row(each) for each in found.points if each.group is group)),),
        )
        for group in dict.fromkeys(each.group for each in found.points)
    )
    return Document(
        "Readiness checklist",
        found.reference,
        found.at_s,
        found.warnings,
        found.verdict.value,
        (head, *groups),
    )


def _open(points: tuple[Point, ...]) -> tuple[Grid, ...]:
    rows = tuple(
        (each.name, each.verdict.value, each.remedy or "-")
        for each in points
        if each.required and each.verdict is not Verdict.SUCCESSFUL
    )
    return (Grid("To be done", ("point", "verdict", "what to do"), rows),) if rows else ()


def _row(point: Point) -> tuple[str, ...]:
    asked = "required" if point.required else "advised"
    return point.name, point.verdict.value, asked, point.said, point.remedy or "-"
