"""The compatibility matrix of a model: which version could be put in front of whose clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from salver.protocol.tables import VersionManifest
from salver.registry.by_number import Highest
from salver.registry.compatibility import changes, level_of
from salver.registry.usage import VersionUse

__all__ = ["MOST", "Cell", "Client", "CompatibilityMatrix", "compatibility_matrix", "last_uses"]

MOST: Final = 40
"""Versions in one matrix, the highest; who has more looks at those that are used."""


class Cell(msgspec.Struct, frozen=True):
    """What a client of one version meets when another answers in its place."""

    client_version: str
    server_version: str
    level: str
    """patch and minor: nothing breaks; major: it may."""
    what: tuple[str, ...] = ()
    """The differences, the largest first."""


class Client(msgspec.Struct, frozen=True):
    """A client as it was last seen: the version whose signature it then used, and what would break it."""

    client: str
    endpoint: str
    version: str
    last_s: float
    requests: int
    breaks_with: tuple[str, ...]
    """Versions that this client might not understand."""


class CompatibilityMatrix(msgspec.Struct, frozen=True):
    """Every version of a model against every other, by their numbers."""

    model: str
    versions: tuple[str, ...]
    cells: tuple[Cell, ...]
    clients: tuple[Client, ...]
    left_out: int = 0
    """Lower versions that are not in the matrix."""


def compatibility_matrix(model: str, known: Highest, last: Sequence[VersionUse]) -> CompatibilityMatrix:
    """The matrix of the highest versions, and of those that clients asked `last`."""
    shown = known.manifests
    cells = [_cell(client, server) for client in shown for server in shown if client is not server]
    breaking = {(cell.client_version, cell.server_version) for cell in cells if cell.level == "major"}
    clients = tuple(
        Client(
            use.client,
            use.endpoint,
            use.version,
            use.last_s,
            use.requests,
            tuple(each.version for each in shown if (use.version, each.version) in breaking),
        )
        for use in last
    )
    return CompatibilityMatrix(
        model, tuple(manifest.version for manifest in shown), tuple(cells), clients, known.total - len(shown)
    )


def _cell(client: VersionManifest, server: VersionManifest) -> Cell:
    found = changes(client, server)
    return Cell(client.version, server.version, level_of(found).word, tuple(change.what for change in found))


def last_uses(uses: Iterable[VersionUse]) -> list[VersionUse]:
    """Of each client at each endpoint, what it asked last; see `salver.registry.usage`."""
    last: dict[tuple[str, str], VersionUse] = {}
    for use in uses:
        known = last.get((use.client, use.endpoint))
        if known is None or use.last_s > known.last_s:
            last[use.client, use.endpoint] = use
    return [last[key] for key in sorted(last)]
