"""Registers the versions of a repository, each once, when nobody writes to it any more.

What was registered is known from the registry itself: each version says in its metadata where it comes from. So a
watcher can be killed and started at any time, and two of them do no harm.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec

from salver.clock import Clock
from salver.control.action import Nothing
from salver.control.actions.deployments import DEPLOY
from salver.control.actions.models import each_version
from salver.control.actions.registration import REGISTER
from salver.control.actions.status import STATUS
from salver.control.administration import Administration
from salver.control.registration import draft_version
from salver.imports import Imported, convert_path
from salver.protocol.description import Description, merged
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.registry.deploy_request import DeployRequest
from salver.registry.draft import VersionDraft
from salver.storage.blob_store import Blobs
from salver.watching.layout import FoundVersion, found_versions
from salver.watching.sources import Source

__all__ = ["Report", "WatchOptions", "Watcher"]

_PASSING: Final = frozenset(
    (
        *("CONTROL_UNAVAILABLE", "STORE_UNAVAILABLE", "STORAGE_FULL", "OVERLOADED", "QUEUE_FULL", "CONFLICT"),
        *("NOT_READY", "INTERNAL"),
    )
)
"""What says nothing of a version: it is tried again."""
_SOURCE: Final = "source"
_NUMBER: Final = "source_version"
_REPOSITORY: Final = "source_repository"


class WatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a repository is watched."""

    settle_s: float = 5.0
    """Nothing of a version may have changed for so long, before it is taken."""
    every_s: float = 10.0
    """How often to look where nobody tells what changes."""
    done_marker: str = ""
    """The name of a file that says that a version is complete; without one, quiet does."""
    deploy: bool = False
    """Whether the endpoint that is named like a model serves the newest that was registered."""
    trust_code: bool = False
    converter: Path | None = None
    """The Python that has TensorFlow and its converter."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened, said once."""

    event: str
    """registered, known, deployed, refused, left (not taken for a reason that will not go away), or waiting."""
    source: str
    """MODEL/NUMBER in the repository."""
    model: str = ""
    version: str = ""
    reason: str = ""

    @property
    def reference(self) -> str:
        """NAME@VERSION; empty where it is about no version that is registered."""
        return f"{self.model}@{self.version}" if self.version else ""


class Watcher:
    """Watches one repository. `report` is told what happens; nothing else is said."""

    def __init__(
        self,
        source: Source,
        administration: Callable[[], AbstractContextManager[Administration]],
        blobs: Callable[[], Blobs],
        options: WatchOptions,
        clock: Clock,
        report: Callable[[Report], None],
    ) -> None:
        self._source = source
        self._administration = administration
        self._blobs = blobs
        self._options = options
        self._clock = clock
        self._report = report
        self._identity = hashlib.sha256(source.uri.encode()).hexdigest()[:16]
        self._known: dict[str, set[int]] = {}
        """By model: the numbers that are registered."""
        self._taken: dict[str, object] = {}
        """By path: what it was when it was registered or refused."""
        self._quiet: dict[str, tuple[object, float]] = {}
        """By path of what is not taken yet: what it was, and since when."""
        self._fresh: set[str] = set()
        """Models with a version that was just registered."""
        self._served: set[str] = set()
        """Models that were looked after once: what is undeployed later stays so."""
        self._said: set[tuple[str, str]] = set()

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        while not stop.is_set():
            options = self._options
            pause_s = min(options.settle_s, options.every_s) if self.tick() else options.every_s
            self._source.wait(pause_s, stop)

    def once(self, longest_s: float) -> bool:
        """Take what there is, waiting for what is being written for `longest_s`; whether nothing was refused.

        Raises what the source raises where it is not to be had.
        """
        self._source.files()
        until_s = self._clock.monotonic_s() + longest_s
        pause = threading.Event()
        while self.tick() and self._clock.monotonic_s() < until_s:
            pause.wait(min(0.2, self._options.settle_s / 4))
        return not any(event in ("refused", "unreachable") for event, _ in self._said)

    def tick(self) -> bool:
        """Look once, and take what can be taken; whether something is there that cannot be taken yet. Blocks."""
        try:
            found = found_versions(self._source.files(), self._source.name)
        except SalverError as error:
            self._say("unreachable", self._source.name, error)
            return True
        self._said.discard(("unreachable", self._source.name))
        present = {version.path for version in found}
        for path in self._quiet.keys() - present:
            del self._quiet[path]
        waiting = False
        for model, versions in _by_model(found):
            waiting |= self._take(model, versions)
        return waiting

    def _take(self, model: str, versions: list[FoundVersion]) -> bool:
        """Take the versions of a model in the order of their numbers; whether one is not ready yet."""
        try:
            check_name(model, "model")
            known = self._registered(model)
        except SalverError as error:
            return self._failed(model, error)
        waiting = False
        if self._options.done_marker:
            versions = [each for each in versions if self._options.done_marker in each.files]
        for version in versions:
            if version.number in known or self._taken.get(version.path) == version.stamp:
                self._look_for_changes(version)
                continue
            if known and version.number < max(known):
                self._leave(version, f"{max(known)} is registered, and a lower number would become the newest release")
                continue
            if not self._is_settled(version):
                waiting = True
                break  # what comes behind it would get a lower release number
            self._said.discard(("refused", version.path))
            try:
                waiting = not self._register(version)
            except SalverError as error:
                waiting = self._failed(version.path, error)
                self._taken[version.path] = None if waiting else version.stamp
            if waiting:
                break
        if self._options.deploy and known:
            self._keep_deployed(model)
        return waiting

    def _registered(self, model: str) -> set[int]:
        """The numbers of this repository that the registry has."""
        if model not in self._known:
            with self._administration() as admin:
                try:
                    manifests = tuple(each_version(admin, model))
                except SalverError as error:
                    if error.code != "NOT_FOUND":
                        raise
                    manifests = ()
            self._known[model] = {
                int(each.metadata[_NUMBER])
                for each in manifests
                if each.metadata.get(_REPOSITORY) == self._identity and each.metadata.get(_NUMBER, "").isdigit()
            }
        return self._known[model]

    def _look_for_changes(self, version: FoundVersion) -> None:
        before = self._taken.setdefault(version.path, version.stamp)
        if before != version.stamp and version.number in self._known[version.model]:
            self._leave(version, "it has changed since it was registered, and versions never change: add a new number")

    def _is_settled(self, version: FoundVersion) -> bool:
        """Whether nothing of it has changed for a while: by what its files say, or by what was seen of them."""
        if self._options.done_marker:
            return True
        if 0 <= version.changed_s <= self._clock.wall_s() - self._options.settle_s:
            return True
        now_s = self._clock.monotonic_s()
        stamp, since_s = self._quiet.setdefault(version.path, (version.stamp, now_s))
        if stamp != version.stamp:
            self._quiet[version.path] = version.stamp, now_s
            return False
        return now_s - since_s >= self._options.settle_s

    def _register(self, version: FoundVersion) -> bool:
        """Register a version; False where it changed meanwhile. Raises `SalverError`."""
        bad = next((path for path, file in version.files.items() if file.problem), None)
        if bad is not None:
            raise SalverError("INVALID_ARTIFACT", f"{bad!r} {version.files[bad].problem}", "copy what it points to")
        with tempfile.TemporaryDirectory(prefix="salver-watch-") as scratch:
            copied = Path(scratch) / version.model
            self._copy(version, copied)
            again = found_versions(self._source.files(), self._source.name)
            if not any(each.path == version.path and each.stamp == version.stamp for each in again):
                return False
            draft = self._draft(version, copied, Path(scratch) / "converted")
            with self._administration() as admin:
                done = admin.do(REGISTER, draft)
        self._known[version.model].add(version.number)
        self._taken[version.path] = version.stamp
        event = "registered" if done.created else "known"
        self._report(Report(event, version.path, done.manifest.model, done.manifest.version))
        if done.created:
            self._fresh.add(version.model)
        return True

    def _copy(self, version: FoundVersion, into: Path) -> None:
        for relative, file in version.files.items():
            if relative == self._options.done_marker:
                continue
            target = into / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            self._source.copy(file, target)

    def _draft(self, version: FoundVersion, copied: Path, converted: Path) -> VersionDraft:
        made: Imported | None = None
        if (copied / "saved_model.pb").is_file() or (copied / "MLmodel").is_file():
            made = convert_path(copied, converted, python=self._options.converter)
        draft = draft_version(
            self._blobs(),
            version.model,
            made.directory if made else copied,
            format=made.format if made else None,
            trust_code=self._options.trust_code,
        )
        origin = {
            _SOURCE: f"{self._source.name}/{version.path}",
            _NUMBER: str(version.number),
            _REPOSITORY: self._identity,
        }
        if made is None:
            return msgspec.structs.replace(draft, metadata=draft.metadata | origin)
        said = made.described()
        return msgspec.structs.replace(
            draft,
            metadata=draft.metadata | made.facts() | origin,
            description=merged(Description(), said) if said else None,
            tags=made.tags(),
        )

    def _keep_deployed(self, model: str) -> None:
        """Deploy the newest if it was just registered, or nothing is: whoever has deployed another version meant it."""
        fresh = model in self._fresh
        self._fresh.discard(model)
        if not fresh and model in self._served:
            return
        with self._administration() as admin:
            self._served.add(model)
            if not fresh and any(spec.endpoint == model for spec in admin.do(STATUS, Nothing()).deployments):
                return
            newest = max(
                (each for each in each_version(admin, model) if each.metadata.get(_REPOSITORY) == self._identity),
                key=lambda each: int(each.metadata[_NUMBER]),
                default=None,
            )
        if newest is not None:
            self._deploy(f"{model}/{newest.metadata[_NUMBER]}", model, newest.version)

    def _deploy(self, path: str, model: str, version: str) -> None:
        try:
            with self._administration() as admin:
                admin.do(DEPLOY, DeployRequest(model, version))
        except SalverError as error:
            self._say("refused", path, error, model, version)
        else:
            self._report(Report("deployed", path, model, version))

    def _failed(self, path: str, error: SalverError) -> bool:
        """Say what went wrong; whether it may go better later."""
        passing = error.code in _PASSING
        self._say("waiting" if passing else "refused", path, error)
        return passing

    def _leave(self, version: FoundVersion, reason: str) -> None:
        if ("left", version.path) not in self._said:
            self._said.add(("left", version.path))
            self._report(Report("left", version.path, reason=reason))

    def _say(self, event: str, path: str, error: SalverError, model: str = "", version: str = "") -> None:
        if (event, path) not in self._said:
            self._said.add((event, path))
            self._report(Report(event, path, model, version, str(error)))


def _by_model(found: list[FoundVersion]) -> Iterator[tuple[str, list[FoundVersion]]]:
    models = dict.fromkeys(version.model for version in found)
    for model in models:
        yield model, [version for version in found if version.model == model]
