"""The exact versions of what is installed here and needed to serve."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from salver.protocol.errors import SalverError

__all__ = ["pinned_requirements"]


def pinned_requirements(extras: Iterable[str] = (), also: Iterable[str] = ()) -> list[str]:
    """`name==version` of everything installed here that Salver with `extras`, and `also`, needs; sorted.

    Salver itself is left out. Raises INVALID_SETTING for what is needed and not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(f"salver[{','.join(extras)}]"), *map(_requirement, also)]
    while waiting:
        needed = waiting.pop()
        key = (canonicalize_name(needed.name), frozenset(needed.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(needed.name)
        except importlib.metadata.PackageNotFoundError:
            raise SalverError(
                "INVALID_SETTING", f"{needed.name} is needed in the image but not installed here", "install it first"
            ) from None
        found[key[0]] = distribution.version
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if _applies(requirement, needed.extras):
                waiting.append(requirement)
    found.pop("salver", None)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _requirement(name: str) -> Requirement:
    try:
        return Requirement(name)
    except ValueError as error:
        raise SalverError("INVALID_SETTING", f"{name[:80]!r} is no package's name") from error


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
