"""The fields that a filter may name, what each is compared with, and where its values are read."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from salver.protocol.description import DataReference, Description
from salver.protocol.names import SemanticVersion
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.tables import FileEntry

__all__ = ["FIELDS", "OPEN_FIELDS", "Field", "Kind", "Source", "VersionFacts", "field_named", "nearest"]


class Kind(enum.Enum):
    """What the values of a field are."""

    TEXT = "text"
    NUMBER = "a number"
    TIME = "a date such as 2026-03-01 or a time with its zone"
    VERSION = "a version such as 1.0.0"
    STAGE = "a stage"
    TRUTH = "true or false"
    ANY = "text, a number, true or false"


class Source(enum.Flag):
    """What must be read from the database before a field has values."""

    VERSIONS = 0
    MANIFEST = enum.auto()
    DESCRIPTION = enum.auto()
    TAGS = enum.auto()
    ALIASES = enum.auto()
    STAGES = enum.auto()
    DEPLOYMENTS = enum.auto()
    HOLDS = enum.auto()


class ManifestFacts(msgspec.Struct, frozen=True):
    """What filters look at in a manifest; the rest is not decoded."""

    files: tuple[FileEntry, ...]
    signature: Signature


class VersionFacts(msgspec.Struct):
    """What is known of one version, as far as a filter asks for it."""

    model: str
    version: str
    ordinal: int
    digest: str
    format: str
    kind: str
    registered_s: float
    registered_by: str
    manifest: ManifestFacts | None = None
    description: Description = Description()
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    stage: str = Stage.DEVELOPMENT.value
    emergency: bool = False
    held: bool = False


Read = Callable[[VersionFacts], Iterable[Any]]


class Field(NamedTuple):
    """One field. Of several values a comparison holds if it holds of any."""

    name: str
    kind: Kind
    source: Source
    read: Read


def _one(name: str, kind: Kind, source: Source, value: Callable[[VersionFacts], Any]) -> Field:
    return Field(name, kind, source, lambda facts: (value(facts),))


def _specs(name: str, of: Callable[[Signature], Iterable[TensorSpec]], value: Callable[[TensorSpec], Any]) -> Field:
    def read(facts: VersionFacts) -> Iterable[Any]:
        return [value(spec) for spec in of(facts.manifest.signature)] if facts.manifest else ()

    return Field(name, Kind.TEXT, Source.MANIFEST, read)


def _labels(facts: VersionFacts) -> Iterable[Any]:
    return [label for spec in facts.manifest.signature.outputs for label in spec.labels] if facts.manifest else ()


def _size(facts: VersionFacts) -> Iterable[Any]:
    return (float(sum(file.size_bytes for file in facts.manifest.files)),) if facts.manifest else ()


def _said(name: str) -> Field:
    def read(facts: VersionFacts) -> Iterable[Any]:
        value = getattr(facts.description, name, "")
        return (value,) if value else ()

    return Field(name, Kind.TEXT, Source.DESCRIPTION, read)


def _dirty(facts: VersionFacts) -> Iterable[Any]:
    return () if facts.description.code_dirty is None else (facts.description.code_dirty,)


def _of_data(name: str, part: str, kind: Kind) -> Field:
    def read(facts: VersionFacts) -> Iterable[Any]:
        value = getattr(getattr(facts.description, name, None), part, None)
        return (value,) if value not in (None, "") else ()

    return Field(f"{name}.{part}", kind, Source.DESCRIPTION, read)


_TEXTS: Final = tuple(each.name for each in msgspec.structs.fields(Description) if each.type is str)
_DATA: Final = ("training_data", "evaluation_data")
_PARTS: Final = {
    each.name: Kind.TEXT if each.type is str else Kind.NUMBER for each in msgspec.structs.fields(DataReference)
}

_ALL: Final = (
    _one("name", Kind.TEXT, Source.VERSIONS, lambda facts: facts.model),
    _one("version", Kind.VERSION, Source.VERSIONS, lambda facts: SemanticVersion.parse(facts.version)),
    _one("ordinal", Kind.NUMBER, Source.VERSIONS, lambda facts: float(facts.ordinal)),
    _one("digest", Kind.TEXT, Source.VERSIONS, lambda facts: facts.digest),
    _one("format", Kind.TEXT, Source.VERSIONS, lambda facts: facts.format),
    _one("kind", Kind.TEXT, Source.VERSIONS, lambda facts: facts.kind),
    _one("registered", Kind.TIME, Source.VERSIONS, lambda facts: facts.registered_s),
    _one("registered_by", Kind.TEXT, Source.VERSIONS, lambda facts: facts.registered_by),
    _one("stage", Kind.STAGE, Source.STAGES, lambda facts: facts.stage),
    _one("emergency", Kind.TRUTH, Source.STAGES, lambda facts: facts.emergency),
    _one("held", Kind.TRUTH, Source.HOLDS, lambda facts: facts.held),
    Field("alias", Kind.TEXT, Source.ALIASES, lambda facts: facts.aliases),
    Field("deployed", Kind.TEXT, Source.DEPLOYMENTS, lambda facts: facts.endpoints),
    Field("size_bytes", Kind.NUMBER, Source.MANIFEST, _size),
    _specs("input", lambda signature: signature.inputs, lambda spec: spec.name),
    _specs("output", lambda signature: signature.outputs, lambda spec: spec.name),
    _specs("input_datatype", lambda signature: signature.inputs, lambda spec: spec.datatype),
    _specs("output_datatype", lambda signature: signature.outputs, lambda spec: spec.datatype),
    Field("label", Kind.TEXT, Source.MANIFEST, _labels),
    *map(_said, _TEXTS),
    Field("code_dirty", Kind.TRUTH, Source.DESCRIPTION, _dirty),
    *(_of_data(name, part, kind) for name in _DATA for part, kind in _PARTS.items()),
)
FIELDS: Final[Mapping[str, Field]] = {each.name: each for each in _ALL}
"""Those with a name of their own."""

OPEN_FIELDS: Final[Mapping[str, Kind]] = {
    "metrics": Kind.NUMBER,
    "hyperparameters": Kind.ANY,
    "extra": Kind.ANY,
    "tags": Kind.ANY,
}
"""Those behind which any name may stand: metrics.auc."""


def field_named(name: str) -> Field | None:
    """The field of that name; None where there is none."""
    section, dot, key = name.partition(".")
    if dot and key and section in OPEN_FIELDS:
        return _open(section, key)
    return FIELDS.get(name)


def nearest(name: str) -> str:
    """What to tell somebody who named a field that does not exist."""
    section = name.partition(".")[0]
    if section in OPEN_FIELDS:
        return f"write {section}.NAME"
    known = [*FIELDS, *(f"{each}.NAME" for each in OPEN_FIELDS)]
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _open(section: str, key: str) -> Field:
    def read(facts: VersionFacts) -> Iterable[Any]:
        values: Mapping[str, Any] = facts.tags if section == "tags" else getattr(facts.description, section, {})
        return (values[key],) if values.get(key) is not None else ()

    source = Source.TAGS if section == "tags" else Source.DESCRIPTION
    return Field(f"{section}.{key}", OPEN_FIELDS[section], source, read)
