"""Names and version numbers: what users may call things.

Names of models and endpoints appear in paths and metrics, so the rule is narrow and no name
ever becomes a file path. Versions follow Semantic Versioning 2.0.0 and sort by its
precedence rule (section 11).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from salver.protocol.errors import SalverError

__all__ = ["FIRST_VERSION", "SemanticVersion", "check_name", "named_version", "parse_reference", "split_reference"]

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")
_SEMVER: Final = re.compile(
    r"(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_LONGEST_VERSION: Final = 64


def check_name(name: str, what: str) -> str:
    """Return `name`, or raise INVALID_NAME naming `what` ("model", "endpoint", ...)."""
    if _NAME.fullmatch(name) is None or ".." in name:
        if "@" in name and _NAME.fullmatch(name.partition("@")[0]):
            raise SalverError(
                "INVALID_NAME", f"{what} name {name[:140]!r} is not allowed", "leave out the @ and the rest"
            )
        raise SalverError(
            "INVALID_NAME",
            f"{what} name {name[:140]!r} is not allowed",
            "use 1-128 characters of a-z, 0-9, '.', '_', '-', without '..', "
            "beginning and ending with a letter or digit",
        )
    return name


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class SemanticVersion:
    """A semantic version that sorts by precedence, and by build metadata last.

    The specification gives versions that differ in build metadata the same precedence. They are
    different versions all the same, and whatever sorts or takes a maximum needs one order: among
    them the one without metadata comes first, the others by their identifiers.

    >>> SemanticVersion.parse("1.10.0") > SemanticVersion.parse("1.9.0")
    True
    >>> SemanticVersion.parse("1.0.0-rc.1") < SemanticVersion.parse("1.0.0")
    True
    """

    major: int
    minor: int
    patch: int
    prerelease: str = ""
    build: str = ""

    @classmethod
    def parse(cls, text: str) -> SemanticVersion:
        """Read "MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]"; raises INVALID_VERSION."""
        match = _SEMVER.fullmatch(text) if len(text) <= _LONGEST_VERSION else None
        if match is None:
            raise SalverError(
                "INVALID_VERSION",
                f"{text[:80]!r} is not a semantic version",
                "write MAJOR.MINOR.PATCH, for example 1.0.0 or 2.1.0-rc.1",
            )
        major, minor, patch, prerelease, build = match.groups()
        return cls(int(major), int(minor), int(patch), prerelease or "", build or "")

    @property
    def precedence(self) -> tuple[object, ...]:
        """What the specification compares: everything but the build metadata."""
        return (self.major, self.minor, self.patch, not self.prerelease, _identifiers(self.prerelease))

    @property
    def sort_key(self) -> str:
        """Text whose code points sort as versions do. Databases keep it, so it never changes.

        >>> SemanticVersion.parse("1.10.0-rc.2").sort_key
        '000000000100000000100000000000-1rc 0012 +!'
        """
        return f"{self.precedence_key}+{_key_of(self.build)}!{self.build}"

    @property
    def precedence_key(self) -> str:
        """What the keys of all versions of this precedence begin with, and only theirs with a "+" behind it."""
        core = f"{self.major:010}{self.minor:010}{self.patch:010}"
        return f"{core}-{_key_of(self.prerelease)}" if self.prerelease else f"{core}~"

    @property
    def release(self) -> SemanticVersion:
        """The one of the same three numbers without pre-release and build."""
        return SemanticVersion(self.major, self.minor, self.patch)

    def __lt__(self, other: SemanticVersion) -> bool:
        mine, theirs = self.precedence, other.precedence
        if mine != theirs:
            return mine < theirs
        return (_identifiers(self.build), self.build) < (_identifiers(other.build), other.build)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += f"-{self.prerelease}"
        return f"{text}+{self.build}" if self.build else text


def _identifiers(dotted: str) -> tuple[tuple[int, int, str], ...]:
    """Numeric identifiers sort as numbers and before all others."""
    parts = dotted.split(".") if dotted else []
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _key_of(dotted: str) -> str:
    """The same order as text: the signs around identifiers sort before all that may stand in one."""
    found = _identifiers(dotted)
    return "".join(f"1{text} " if is_text else f"0{len(str(number)):02}{number} " for is_text, number, text in found)


FIRST_VERSION: Final = SemanticVersion(1, 0, 0)


def parse_reference(reference: str) -> tuple[str, str | None]:
    """Split "NAME[@VERSION]" and check both parts.

    >>> parse_reference("digits@1.0.0"), parse_reference("digits")
    (('digits', '1.0.0'), ('digits', None))
    """
    name, at, version = reference.partition("@")
    check_name(name, "model")
    if not at:
        return name, None
    return name, str(SemanticVersion.parse(version))


def split_reference(reference: str) -> tuple[str, str]:
    """The name, and what stands behind the @: a version, an alias or a stage; "latest" where nothing does.

    >>> split_reference("digits@champion"), split_reference("digits")
    (('digits', 'champion'), ('digits', 'latest'))
    """
    name, at, wanted = reference.partition("@")
    check_name(name, "model")
    if at and not wanted:
        raise SalverError(
            "INVALID_VERSION", f"{reference[:140]!r} names no version", "write NAME@1.0.0, or the NAME alone"
        )
    return name, wanted or "latest"


def named_version(reference: str) -> tuple[str, str]:
    """The same of a reference that has to name a version, by whatever name; raises INVALID_VERSION.

    >>> named_version("digits@champion")
    ('digits', 'champion')
    """
    name, at, _ = reference.partition("@")
    check_name(name, "model")
    if not at:
        if _SEMVER.fullmatch(name):
            raise SalverError("INVALID_VERSION", f"{name!r} names no model", f"write NAME@{name}")
        raise SalverError("INVALID_VERSION", f"{reference[:140]!r} names no version", f"write {name}@VERSION")
    return split_reference(reference)
