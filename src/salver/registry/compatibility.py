"""What one version changes against another, seen by those who call it.

Three levels, as Semantic Versioning has them. *Major*: a client of the older version may be refused by the newer
one, or may read its answers wrongly. *Minor*: every such client goes on as it was, and there is something new, or the
same values come about in another way. *Patch*: all the rest, above all new weights.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import VersionManifest
from salver.registry.shaping import shaping_files

__all__ = ["Change", "Level", "breaking", "changes", "level_of", "signature_changes"]


class Level(enum.IntEnum):
    """How much a change is, the higher the more."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2

    @property
    def word(self) -> str:
        """Its name as people write it."""
        return self.name.lower()


class Change(NamedTuple):
    """One difference."""

    level: Level
    what: str
    """What differs, in words: "input 'age' is new and required"."""


def changes(before: VersionManifest, after: VersionManifest) -> tuple[Change, ...]:
    """Everything that clients of `before` meet in `after`, the largest first; empty where only weights differ."""
    found = [
        *signature_changes(before.signature, after.signature),
        *_behaviour(before, after),
        *_code(before, after),
    ]
    return tuple(sorted(found, key=lambda change: -change.level))


def signature_changes(before: Signature, after: Signature) -> tuple[Change, ...]:
    """What clients of a version with one signature meet in another, the largest first."""
    return tuple(sorted([*_inputs(before, after), *_outputs(before, after)], key=lambda change: -change.level))


def level_of(found: tuple[Change, ...]) -> Level:
    """The largest of some changes; a patch where there are none."""
    return max((change.level for change in found), default=Level.PATCH)


def breaking(before: VersionManifest, after: VersionManifest) -> tuple[str, ...]:
    """What clients of `before` might not understand in `after`."""
    return tuple(change.what for change in changes(before, after) if change.level is Level.MAJOR)


# Inputs: what was accepted must still be.


def _inputs(before: Signature, after: Signature) -> Iterator[Change]:
    old = {spec.name: spec for spec in before.inputs}
    new = {spec.name: spec for spec in after.inputs}
    for name in sorted(old.keys() - new.keys()):
        yield Change(Level.MAJOR, f"input {name!r} is gone")
    for name in sorted(new.keys() - old.keys()):
        if new[name].optional:
            yield Change(Level.MINOR, f"input {name!r} is new and optional")
        else:
            yield Change(Level.MAJOR, f"input {name!r} is new and required")
    for name in sorted(old.keys() & new.keys()):
        yield from _input(old[name], new[name])


def _input(old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    if new.datatype != old.datatype:
        yield Change(Level.MAJOR, f"input {old.name!r} is {new.datatype}, it was {old.datatype}")
    if not _holds(new.shape, old.shape):
        yield Change(Level.MAJOR, f"input {old.name!r} has shape {list(new.shape)}, it had {list(old.shape)}")
    elif new.shape != old.shape:
        yield Change(Level.MINOR, f"input {old.name!r} takes shape {list(new.shape)}, it took {list(old.shape)}")
    if old.labels and new.labels and old.labels != new.labels:
        # Whoever sends rows sends them by place.
        told = "its columns in another order" if set(old.labels) == set(new.labels) else "other columns"
        yield Change(Level.MAJOR, f"input {old.name!r} has {told}")
    if old.optional and not new.optional:
        yield Change(Level.MAJOR, f"input {old.name!r} is required, it was optional")
    elif new.optional and not old.optional:
        yield Change(Level.MINOR, f"input {old.name!r} is optional, it was required")


# Outputs: what was promised must still be.


def _outputs(before: Signature, after: Signature) -> Iterator[Change]:
    old = {spec.name: spec for spec in before.outputs}
    new = {spec.name: spec for spec in after.outputs}
    for name in sorted(old.keys() - new.keys()):
        yield Change(Level.MAJOR, f"output {name!r} is gone")
    for name in sorted(new.keys() - old.keys()):
        yield Change(Level.MINOR, f"output {name!r} is new")
    for name in sorted(old.keys() & new.keys()):
        yield from _output(old[name], new[name])


def _output(old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    if new.datatype != old.datatype:
        yield Change(Level.MAJOR, f"output {old.name!r} is {new.datatype}, it was {old.datatype}")
    if not _holds(old.shape, new.shape):
        yield Change(Level.MAJOR, f"output {old.name!r} has shape {list(new.shape)}, it had {list(old.shape)}")
    elif new.shape != old.shape:
        yield Change(Level.MINOR, f"output {old.name!r} is always of shape {list(new.shape)}, it had {list(old.shape)}")
    if new.labels != old.labels:
        # A client knows classes by their place: more of them behind the known ones confuse nobody.
        grown = new.labels[: len(old.labels)] == old.labels
        told = "more labels than before" if grown and old.labels else "labels" if grown else "other labels"
        yield Change(Level.MINOR if grown else Level.MAJOR, f"output {old.name!r} has {told}")


def _holds(outer: tuple[int, ...], inner: tuple[int, ...]) -> bool:
    """Whether every shape that fits `inner` fits `outer`; -1 is any size."""
    return len(outer) == len(inner) and all(a in (-1, b) for a, b in zip(outer, inner, strict=True))


# How it answers.


def _behaviour(before: VersionManifest, after: VersionManifest) -> Iterator[Change]:
    if before.kind != after.kind:
        yield Change(Level.MAJOR, f"it is of kind {after.kind}, it was {before.kind}")
    if before.streams and not after.streams:
        yield Change(Level.MAJOR, "it no longer streams")
    elif after.streams and not before.streams:
        yield Change(Level.MINOR, "it streams")
    if before.idempotent and not after.idempotent:
        # Clients and this server have repeated requests, and answered from a cache, on that word.
        yield Change(Level.MAJOR, "asking it twice is no longer the same as once")
    elif after.idempotent and not before.idempotent:
        yield Change(Level.MINOR, "asking it twice is the same as once")


# What runs before and behind the weights.


def _code(before: VersionManifest, after: VersionManifest) -> Iterator[Change]:
    for setting, name in (("preprocess", "pre-processing"), ("postprocess", "post-processing")):
        old, new = getattr(before, setting), getattr(after, setting)
        if old != new:
            became = f"is {new}, it was {old}" if old and new else f"{new} is new" if new else f"{old} is gone"
            yield Change(Level.MINOR, f"{name} {became}")
    if before.format != after.format:
        yield Change(Level.MINOR, f"its format is {after.format}, it was {before.format}")
    yield from _files("code {}", _code_files(before), _code_files(after))
    yield from _files("file {} beside the model", shaping_files(before), shaping_files(after))


def _files(called: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            became = "gone" if path not in after else "another" if path in before else "new"
            yield Change(Level.MINOR, f"the {called.format(path)} is {became}")


def _code_files(manifest: VersionManifest) -> dict[str, str]:
    return {file.path: file.sha256 for file in manifest.files if file.path.endswith(".py")}
