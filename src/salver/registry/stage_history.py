"""In which stage each version was when, and who put it there: replayed from records of the journal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from salver.protocol.journal_actions import JournalAction
from salver.protocol.stages import Stage
from salver.storage.journal import JournalRecord

__all__ = ["Stood", "stood"]

_MOVING: Final[frozenset[JournalAction]] = frozenset({"promote", "replace", "retire"})


class Stood(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that was in a stage for some time."""

    model: str
    version: str
    stage: Stage
    moved_by: str
    """Who put it there; of the first stage, who registered it."""
    since_s: float
    seq: int
    """The record that began it."""
    decision: str = ""
    """That by which it went there; none decided about a new version, nor about one that made room in production."""
    why: str = ""
    request_id: str = ""
    emergency: bool = False
    """It had been promoted past its gates by then."""
    replaced_by: str = ""
    """The version that took its place in production."""
    until_s: float | None = None
    """None while it is still there."""
    until_seq: int | None = None

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


def stood(records: Iterable[JournalRecord], model: str) -> tuple[Stood, ...]:
    """The stages of a model's versions, in the order in which they began. REQUIRES the order of the journal."""
    found: list[Stood] = []
    open_at: dict[str, int] = {}
    for record in records:
        name, _, version = record.subject.partition("@")
        if name != model or not (record.action == "register" or record.action in _MOVING):
            continue
        before = open_at.get(version)
        marked = before is not None and found[before].emergency
        if before is not None:
            found[before] = msgspec.structs.replace(found[before], until_s=record.at_s, until_seq=record.seq)
        open_at[version] = len(found)
        found.append(_stood(record, model, version, marked=marked))
    return tuple(found)


def _stood(record: JournalRecord, model: str, version: str, *, marked: bool) -> Stood:
    said = record.details
    return Stood(
        model,
        version,
        Stage(said["target"]) if record.action in _MOVING else Stage.DEVELOPMENT,
        record.actor,
        record.at_s,
        record.seq,
        said.get("decision", ""),
        record.why,
        record.request_id,
        emergency=marked or bool(said.get("emergency")),
        replaced_by=said.get("by", "") if record.action == "replace" else "",
    )
