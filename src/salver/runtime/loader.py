"""From published manifest to loaded version: verify every byte, then load exactly those bytes.

An artifact of one file, of a format that loads from memory (ONNX), is read, hashed and loaded
from there. Anything else is copied into a fresh private directory while it is hashed, loaded
from that copy, and the copy is removed with the version. Bytes that change in the store between
check and use therefore cannot reach a runtime.

Where a version computes was decided by its manifest, so the declaration in the artifact must say the
same: otherwise nothing of it is loaded.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, cast

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS, is_always_code
from salver.protocol.tables import RuntimeOptions, VersionManifest
from salver.runtime.artifact import source_of
from salver.runtime.chunks import mapped
from salver.runtime.declaration import DECLARATION_FILE, Declaration, read_declaration
from salver.runtime.environment import require_users_code
from salver.runtime.formats import Format, Loaded, Source, Streaming, format_named
from salver.runtime.model import Arrays
from salver.runtime.states import keep_states
from salver.storage.blob_store import ReadableBlobs

__all__ = ["load_version"]

_AGREED: Final = ("preprocess", "postprocess", "kind", "cost", "idempotent", "warm_up", "streams", "states")
"""What a manifest and a declaration both say, each for the other to hold to."""


def load_version(manifest: VersionManifest, options: RuntimeOptions, blobs: ReadableBlobs, scratch: Path) -> Loaded:
    """Verify and load one version, fetched before where it is not here; blocks, so call it off the event loop.

    Raises CORRUPT_ARTIFACT when a stored byte differs, STORE_UNAVAILABLE when it is not here and cannot be
    fetched, REFUSED_BY_POLICY for users' code in a process
    that was not made for it and for a manifest that its artifact contradicts, INVALID_ARTIFACT or
    whatever the format raises otherwise. Nothing is left in `scratch` after a failure.
    """
    if manifest.runs_user_code:
        require_users_code(manifest.reference)
    with blobs.hold(file.sha256 for file in manifest.files):
        return _load_held(manifest, options, blobs, scratch)


def _load_held(manifest: VersionManifest, options: RuntimeOptions, blobs: ReadableBlobs, scratch: Path) -> Loaded:
    chosen = format_named(manifest.format)
    only = manifest.files[0]
    if len(manifest.files) == 1 and FORMATS[manifest.format].loads_from_memory:
        _require_agreement(manifest, Declaration())
        source = Source(scratch, Path(only.path), blobs.read_verified(only.sha256))
        return chosen.load(source, Declaration(), options)
    directory = Path(tempfile.mkdtemp(prefix=f"{manifest.model}-", dir=scratch))
    try:
        for file in manifest.files:
            target = _inside(directory, file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            blobs.copy_verified(file.sha256, target)
        declaration = read_declaration(directory)
        _require_agreement(manifest, declaration)
        alone = len(manifest.files) == 1
        source = source_of(directory / only.path if alone else directory, chosen, declaration)
        return _Materialised(_load(manifest, chosen, source, declaration, options), directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _inside(directory: Path, relative: str) -> Path:
    # Registration checks this, and this is where a mistake there would do harm.
    if not (directory / relative).resolve().is_relative_to(directory.resolve()):
        raise SalverError("CORRUPT_ARTIFACT", "the manifest names a file outside the artifact")
    return directory / relative


def _require_agreement(manifest: VersionManifest, declaration: Declaration) -> None:
    """Raise REFUSED_BY_POLICY naming the first setting that the artifact and its registration disagree on."""
    agreed = {name: getattr(manifest, name) for name in _AGREED}
    agreed["format"] = manifest.format if declaration.format else ""
    agreed["entry"] = declaration.entry if is_always_code(manifest.format) else ""
    for name, registered in agreed.items():
        declared = getattr(declaration, name)
        if declared != registered:
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"{manifest.reference} was registered with {name} {registered!r}, "
                f"and {DECLARATION_FILE} in its files says {declared!r}",
                "register the artifact anew with `salver register`, which reads that file",
            )


def _load(
    manifest: VersionManifest, chosen: Format, source: Source, declaration: Declaration, options: RuntimeOptions
) -> Loaded:
    # What is code by nature only ever gets here in a worker.
    if not manifest.trusts_code and not is_always_code(chosen.name) and chosen.code_in(source):
        raise SalverError("REFUSED_BY_POLICY", f"{manifest.reference} can execute code and nobody vouched for it")
    loaded = chosen.load(source, declaration, options)
    if manifest.keeps_state:
        before, after = (
            _function(source.directory, named) if named else None
            for named in (declaration.preprocess, declaration.postprocess)
        )
        return keep_states(loaded, manifest, before, after)
    return _with_processing(loaded, declaration, source.directory)


class _Materialised:
    """A loaded version that owns the directory it was loaded from."""

    def __init__(self, loaded: Loaded, directory: Path) -> None:
        self._loaded = loaded
        self._directory = directory
        self.run = loaded.run
        self.predicts = getattr(loaded, "predicts", True)

    def stream(self, inputs: Arrays) -> Generator[Arrays, None, None]:
        return cast("Streaming", self._loaded).stream(inputs)

    def unload(self) -> None:
        self._loaded.unload()
        shutil.rmtree(self._directory, ignore_errors=True)


class _Processed:
    """A loaded version between the artifact's own pre- and post-processing functions."""

    def __init__(self, loaded: Loaded, before: Callable[[Arrays], Arrays], after: Callable[[Arrays], Arrays]) -> None:
        self._loaded = loaded
        self._before = before
        self._after = after
        self.predicts = getattr(loaded, "predicts", True)

    def run(self, inputs: Arrays) -> Arrays:
        return self._after(self._loaded.run(self._before(inputs)))

    def stream(self, inputs: Arrays) -> Generator[Arrays, None, None]:
        yield from mapped(cast("Streaming", self._loaded).stream(self._before(inputs)), self._after)

    def unload(self) -> None:
        self._loaded.unload()


def _with_processing(loaded: Loaded, declaration: Declaration, directory: Path) -> Loaded:
    if not declaration.preprocess and not declaration.postprocess:
        return loaded
    return _Processed(
        loaded, _function(directory, declaration.preprocess), _function(directory, declaration.postprocess)
    )


def _function(directory: Path, reference: str) -> Callable[[Arrays], Arrays]:
    if not reference:
        return lambda arrays: arrays
    from salver.runtime.formats.python import import_attribute  # noqa: PLC0415 - user code, in a worker only

    return cast("Callable[[Arrays], Arrays]", import_attribute(directory, reference))
