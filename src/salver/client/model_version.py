"""Versions as a registry hands them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from salver.client.registry_places import Progress
from salver.protocol.description import Description
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.pages import VersionPage

__all__ = ["ListedVersion", "ModelVersion"]


class ListedVersion(msgspec.Struct, frozen=True):
    """A version in a list: what it is, and where it stands."""

    manifest: VersionManifest
    stage: Stage
    since_s: float | None
    """None for one that nobody has moved yet."""

    def __repr__(self) -> str:
        return f"<ListedVersion {self.manifest.reference} in {self.stage}>"


class ModelVersion(msgspec.Struct, frozen=True):
    """A version, as it was when the registry was asked: what it is, what is said of it, where it stands."""

    page: VersionPage
    _fetch: Callable[[VersionManifest, Path, Progress | None], Path]
    created: bool = False
    """Of one that was just published: whether it was new."""

    def __repr__(self) -> str:
        return f"<ModelVersion {self.reference} in {self.stage}>"

    @property
    def manifest(self) -> VersionManifest:
        """What it is: its files with their digests, format, signature and settings."""
        return self.page.manifest

    @property
    def name(self) -> str:
        """The model."""
        return self.manifest.model

    @property
    def version(self) -> str:
        """The number."""
        return self.manifest.version

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return self.manifest.reference

    @property
    def digest(self) -> str:
        """SHA-256 over all its files and their names."""
        return self.manifest.digest

    @property
    def stage(self) -> Stage:
        """Where it stands."""
        return Stage(self.page.stage)

    @property
    def description(self) -> Description:
        """What is said of it."""
        return self.page.description

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return self.page.tags

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that stand for it."""
        return self.page.aliases

    def download(self, into: Path | str, *, progress: Progress | None = None) -> Path:
        """Write its files into the new or empty directory `into`, each held against its digest; return it.

        After a failure the directory is as it was. Raises ALREADY_EXISTS for one with something in it,
        CORRUPT_ARTIFACT for a file that is not what the manifest says.
        """
        return self._fetch(self.manifest, Path(into), progress)
