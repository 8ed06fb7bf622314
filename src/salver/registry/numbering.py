"""Which number a version gets: one that says as much as the version changes (Semantic Versioning 2.0.0).

It is held against the highest release before it. A major change needs the next major number, or below 1.0.0, where
nothing is promised yet, the next minor one; a minor change the next minor number, or below 1.0.0 the next patch. More
than is needed may always be said.

A number with a higher release of its major number behind it is held against the lowest of those too: that one has to
say enough of what *it* changes. So nothing is added below a release that does not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from salver.protocol.errors import SalverError
from salver.protocol.names import FIRST_VERSION, SemanticVersion
from salver.protocol.tables import VersionManifest
from salver.registry.compatibility import Change, Level, changes, level_of

__all__ = ["Numbered", "number"]

_MOST_TOLD: Final = 5


class Numbered(NamedTuple):
    """A number, and what it answers for."""

    version: str
    against: str = ""
    """The release that the version was compared with; empty where there is none before it."""
    changes: tuple[Change, ...] = ()
    before: str = ""
    """The release of the same major number that comes next, if any; it was compared with the version."""
    later_changes: tuple[Change, ...] = ()


def number(known: Sequence[VersionManifest], unnumbered: VersionManifest, wanted: str | None = None) -> Numbered:
    """The number of a version of the model that the `known` ones are of.

    Without a `wanted` one the smallest that says enough, behind all there are; a pre-release is followed by its
    release where that is enough. Raises INVALID_VERSION for a wanted one that says too little, with what differs.
    """
    numbers = {SemanticVersion.parse(manifest.version): manifest for manifest in known}
    if wanted is None:
        return _next(numbers, unnumbered)
    asked = SemanticVersion.parse(wanted)
    base = max((release for release in _releases(numbers) if release.precedence < asked.precedence), default=None)
    found = changes(numbers[base], unnumbered) if base else ()
    if base and asked.release < (least := _after(base, level_of(found))):
        raise SalverError(
            "INVALID_VERSION",
            f"{wanted} says too little of what changes against {base}: {_listed(found)}",
            f"use {least} or higher, or none and it is found",
        )
    following = min((release for release in _releases(numbers) if _is_behind(release, asked)), default=None)
    later = changes(unnumbered, numbers[following]) if following else ()
    if following and following.release < _after(asked.release, level_of(later)):
        raise SalverError(
            "INVALID_VERSION",
            f"{wanted} would be followed by {following}, which says too little of what then changes: {_listed(later)}",
            f"use {_next(numbers, unnumbered).version} or none, or make it from what {following} has",
        )
    return Numbered(wanted, str(base or ""), found, str(following or ""), later)


def _next(numbers: dict[SemanticVersion, VersionManifest], unnumbered: VersionManifest) -> Numbered:
    if not numbers:
        return Numbered(str(FIRST_VERSION))
    highest = max(numbers)
    releases = _releases(numbers)
    if not releases:
        return Numbered(str(highest.release))
    base = max(releases)
    found = changes(numbers[base], unnumbered)
    least = _after(base, level_of(found))
    if highest.prerelease and highest.release >= least:
        least = highest.release
    return Numbered(str(least), str(base), found)


def _releases(numbers: dict[SemanticVersion, VersionManifest]) -> list[SemanticVersion]:
    return [each for each in numbers if not each.prerelease]


def _is_behind(release: SemanticVersion, asked: SemanticVersion) -> bool:
    """Whether clients of the one may come to the other; to its own release a pre-release promises nothing."""
    return release.major == asked.major and release.release > asked.release


def _after(base: SemanticVersion, level: Level) -> SemanticVersion:
    """The least number that says a change of `level` against `base`."""
    if base.major == 0:
        level = Level(max(level - 1, Level.PATCH))
    if level is Level.MAJOR:
        return SemanticVersion(base.major + 1, 0, 0)
    if level is Level.MINOR:
        return SemanticVersion(base.major, base.minor + 1, 0)
    return SemanticVersion(base.major, base.minor, base.patch + 1)


def _listed(found: tuple[Change, ...]) -> str:
    told = [change.what for change in found[:_MOST_TOLD]]
    if len(found) > _MOST_TOLD:
        told.append(f"{len(found) - _MOST_TOLD} more")
    return "; ".join(told) or "the weights"
