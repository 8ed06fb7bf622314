"""A host whose versions come from a shelf."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from tests.signing import provenance, signed

from salver.clock import SYSTEM_CLOCK
from salver.protocol.tables import DeploymentSpec, Tables, VersionManifest
from salver.runtime.host import Host
from salver.runtime.recorder import FlightRecorder
from salver.telemetry.metrics import Metrics
from salver.testing import ComputableModel, eventually, make_manifest, make_request

V1, V2 = make_manifest(), make_manifest(version="2.0.0", digest="cd" * 32)


class Shelf:
    """What `load_version` gives for each version instead of real files."""

    def __init__(self) -> None:
        self.models: dict[str, list[ComputableModel]] = {}
        self.failures: dict[str, Exception] = {}
        self.preparations: dict[str, Any] = {}

    def load(self, manifest: VersionManifest, *_: object) -> ComputableModel:
        if manifest.version in self.preparations:
            self.preparations[manifest.version]()
        if manifest.version in self.failures:
            raise self.failures[manifest.version]
        model = ComputableModel()
        self.models.setdefault(manifest.version, []).append(model)
        return model

    def model(self, version: str) -> ComputableModel:
        return self.models[version][-1]


class Hosting:
    def __init__(self, store: Any, shelf: Shelf) -> None:
        self.changes = 0
        self.hung: list[str] = []
        self.shelf = shelf
        self.metrics = Metrics()
        self.host = Host(
            store.blobs,
            store.scratch,
            FlightRecorder(store.root / "flight"),
            self.metrics,
            SYSTEM_CLOCK,
            provenance(),
            isolated=(),
            on_change=self._changed,
            on_hang=self.hung.append,
        )

    def _changed(self) -> None:
        self.changes += 1

    def apply(self, *pairs: tuple[VersionManifest, DeploymentSpec]) -> None:
        pairs = tuple((signed(manifest), spec) for manifest, spec in pairs)
        specs = [msgspec.structs.replace(spec, version=manifest.version) for manifest, spec in pairs]
        self.host.apply(Tables(1, tuple(manifest for manifest, _ in pairs), tuple(specs)))

    async def settle(self, *pairs: tuple[VersionManifest, DeploymentSpec]) -> None:
        self.apply(*pairs)
        await self.host.settled()

    def ask(self, value: float, endpoint: str = "arithmetic") -> asyncio.Future[Any]:
        return self.host.pools()[endpoint](make_request([[value, value]]))

    @property
    def status(self) -> Any:
        (row,) = self.host.status()
        return row


@contextlib.asynccontextmanager
async def hosting(store: Any, shelf: Shelf, kind: type[Hosting] = Hosting) -> AsyncIterator[Hosting]:
    one = kind(store, shelf)
    try:
        yield one
    finally:
        for models in shelf.models.values():
            for model in models:
                model.release()
        await one.host.close(timeout_s=5.0)
        await eventually(lambda: all(model.unloads == 1 for models in shelf.models.values() for model in models))
        assert list(store.scratch.iterdir()) == []
