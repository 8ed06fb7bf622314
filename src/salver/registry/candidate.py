"""What a decision about a version is made from: one frozen snapshot of everything that gates look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from salver.protocol.stages import Stage
from salver.protocol.verdict import Verdict
from salver.registry.access_tokens import ADMIN_TOKEN_NAME
from salver.registry.evidence import Evaluation
from salver.security.access import Role

__all__ = ["Approval", "Candidate", "Evidence", "GateResult", "Rival", "person_of"]

_OWNER: Final = "the owner of the home"


class Approval(msgspec.Struct, frozen=True):
    """That somebody agrees to a version's way to a stage."""

    model: str
    version: str
    target: Stage
    approved_by: str
    role: Role
    approved_s: float
    why: str = ""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one gate went by: an evaluation, an approval, a metric or an answer of a checklist."""

    kind: str
    id: str
    said: str
    actor: str = ""
    """Who made it."""
    at_s: float | None = None
    numbers: dict[str, float] = {}


class GateResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one gate says of a candidate, and from what."""

    gate: str
    """What it asks, in words."""
    verdict: Verdict
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()


class Rival(msgspec.Struct, frozen=True):
    """The version that is in production, or was the last there, as far as a candidate is compared with it."""

    version: str
    digest: str
    metrics: Mapping[str, float] = {}
    evaluations: tuple[Evaluation, ...] = ()
    left: bool = False
    """Nothing is in production now."""

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return "last in production" if self.left else "in production"


class Candidate(msgspec.Struct, frozen=True):
    """A version on its way from one stage to another, of one moment."""

    model: str
    version: str
    digest: str
    created_by: str
    source: Stage
    target: Stage
    now_s: float
    skipped: tuple[tuple[Stage, Stage], ...] = ()
    """Ways that it should have gone before this one and did not; their gates stand here too."""
    metrics: Mapping[str, float] = {}
    """Of its metadata."""
    evaluations: tuple[Evaluation, ...] = ()
    """The newest first."""
    entrance: Evidence | None = None
    """The decision that let it into production before, if it may come back by that."""
    approvals: tuple[Approval, ...] = ()
    """Of this way, by whoever gave them; a gate looks at who counts."""
    production: Rival | None = None
    """What it is compared with; None where nothing ever was in production, or no gate asks."""
    checklists: Mapping[str, GateResult] = {}
    """What the checklists that the policy names say."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"

    @property
    def ways(self) -> tuple[tuple[Stage, Stage], ...]:
        """All whose gates stand before it."""
        return (*self.skipped, (self.source, self.target))


def person_of(name: str) -> str:
    """Who is behind a name. Several tokens of one name are one person; so are all who own the home's directory.

    Whoever runs commands on the home itself can also read its administrator's token.

    >>> person_of("local:ann") == person_of("admin")
    True
    """
    return _OWNER if name == ADMIN_TOKEN_NAME or name.startswith("local:") else name
