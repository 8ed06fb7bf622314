"""What an evaluation is given besides rows: the home, the model's cases, and a way to a real server.

A server is far above this room, so whoever starts an evaluation says how to start one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from salver.evaluation.subject.rows import Array
from salver.protocol.tables import VersionManifest
from salver.registry.cases import KnownCase
from salver.storage.home import Home

__all__ = ["Given", "OnlinePaths"]


class OnlinePaths(Protocol):
    """A server that serves one version, asked as clients ask it."""

    def ask(self, path: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one request over `json`, `binary` or `grpc`; raises what it is refused with."""


@dataclass(frozen=True)
class Given:
    """What checks of service work with; the part that is None cannot be looked at."""

    home: Home | None = None
    cases: tuple[KnownCase, ...] = ()
    online: Callable[[VersionManifest], AbstractContextManager[OnlinePaths]] | None = None
