"""`salver storage`: the upkeep of the artifact store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from salver.cli.context import Context, Exit
from salver.cli.tables import counted, table
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.storage.blob_store import Blobs, Item
    from salver.storage.settings import StorageSettings

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    storage = typer.Typer(help="Look after the artifact store: blobs/ in the home, or S3.", no_args_is_help=True)
    storage.command("usage", epilog="Example: salver storage usage")(usage)
    storage.command("verify", epilog="Example: salver storage verify --json")(verify)
    storage.command("collect", epilog="Example: salver storage collect --dry-run")(collect)
    storage.command("encrypt", epilog="Example: salver storage encrypt")(encrypt)
    storage.command("rekey", epilog="Example: salver storage rekey --old file:/etc/salver/old.key")(rekey)
    storage.command("upload", epilog="Example: salver storage upload")(upload)
    app.add_typer(storage, name="storage")


class _Usage(msgspec.Struct):
    """What a store holds."""

    place: str
    blobs: int = 0
    size_bytes: int = 0
    encrypted: int = 0
    keys: int = 0


def usage(context: typer.Context) -> None:
    """Show how much the store holds, and how much of it is encrypted or kept in a cache."""
    here: Context = context.obj
    stores = _stores(here)
    found = [_used(place, store) for place, store in stores]
    rows = [
        [each.place, str(each.blobs), f"{each.size_bytes:,}", str(each.encrypted), str(each.keys)] for each in found
    ]
    here.say(found, table(["place", "files", "bytes", "encrypted", "keys"], rows))


def _used(place: str, store: Blobs) -> _Usage:
    from salver.storage.blob_store import Kind

    used = _Usage(place, size_bytes=store.usage_bytes())
    digests: set[str] = set()
    for item in store.items():
        used.encrypted += item.kind is Kind.ENCRYPTED
        used.keys += item.kind is Kind.KEY
        if item.kind in (Kind.PLAIN, Kind.ENCRYPTED):
            digests.add(item.sha256)
    used.blobs = len(digests)
    return used


def verify(context: typer.Context) -> None:
    """Read every stored byte where it is kept, and name what is bad and the versions it belongs to."""
    from salver.control.actions.deletions import kept_versions
    from salver.storage.blob_store import Kind
    from salver.storage.opening import open_blobs
    from salver.storage.scrubbing import owners_of, scrub

    here: Context = context.obj
    blobs = open_blobs(here.home())
    with here.administration() as admin:
        owners = owners_of(kept_versions(admin))
    stored = {item.sha256 for item in blobs.items() if item.kind in (Kind.PLAIN, Kind.ENCRYPTED)}
    unowned: dict[str, tuple[str, ...]] = dict.fromkeys(sorted(stored - owners.keys()), ())
    bad = list(scrub(blobs, owners | unowned))
    document = {"ok": not bad, "files": len(owners | unowned), "unreferenced": len(unowned), "bad": bad}
    if not bad:
        here.say(document, f"{counted(len(owners | unowned), 'file')} read, each what its name says")
        return
    rows = [[", ".join(each.references) or "none", each.problem, each.remedy] for each in bad]
    here.say(document, table(["versions", "problem", "what to do"], rows))
    raise Exit(1)


def collect(
    context: typer.Context,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
    grace: float = typer.Option(3600.0, min=0.0, help="Leave alone what was stored since so many seconds."),
) -> None:
    """Remove what no version refers to."""
    from salver.control.actions.storage import COLLECT
    from salver.registry.collection import CollectionRequest

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(COLLECT, CollectionRequest(dry_run, grace))
    what = f"{counted(done.blobs, 'file')}, {done.size_bytes:,} bytes,"
    here.say(done, f"{what} would go" if dry_run else f"{what} gone")


def encrypt(context: typer.Context) -> None:
    """Encrypt what was stored plain before there was an encryption key. Can be repeated if it is interrupted."""
    from salver.storage.blob_store import Kind

    here: Context = context.obj
    if not _settings(here).encryption_key:
        raise SalverError("INVALID_SETTING", "no encryption key is set", "set encryption_key in storage.toml")
    _each(here, "encrypted", Kind.PLAIN, lambda store, item: store.encrypt(item.sha256))


def rekey(
    context: typer.Context,
    old: str | None = typer.Option(None, help="Where the old key is; by default previous_encryption_key."),
    new: str | None = typer.Option(None, help="Where the new key is; by default encryption_key."),
) -> None:
    """Wrap the data keys anew, under another key-encryption key. Can be repeated if it is interrupted."""
    from salver.storage.blob_keys import key_encryption
    from salver.storage.blob_store import Kind
    from salver.storage.settings import check_key_source

    here: Context = context.obj
    settings = _settings(here)
    before, after = old or settings.previous_encryption_key, new or settings.encryption_key
    if not before or not after:
        raise SalverError(
            "INVALID_SETTING",
            "the old key or the new one is not named",
            "set previous_encryption_key and encryption_key in storage.toml, or give --old and --new",
        )
    keys = [key_encryption(check_key_source(name, place)) for name, place in (("--old", before), ("--new", after))]
    if keys[0].key_id == keys[1].key_id:
        raise SalverError("INVALID_SETTING", "the old key and the new one are the same", "name two keys")
    _each(here, "wrapped anew", Kind.KEY, lambda store, item: store.rewrap(item, *keys))


def upload(context: typer.Context) -> None:
    """Copy what is only in the home to the store elsewhere, after `artifacts` was set."""
    from salver.storage.blob_store import Kind
    from salver.storage.opening import open_blobs
    from salver.storage.remote_blobs import RemoteBlobs

    here: Context = context.obj
    blobs = open_blobs(here.home())
    if not isinstance(blobs, RemoteBlobs):
        raise SalverError("INVALID_SETTING", "artifacts are kept in the home", "set artifacts in storage.toml")
    kinds = (Kind.PLAIN, Kind.ENCRYPTED)
    there = {item.sha256 for item in blobs.items() if item.kind in kinds}
    missing = {item.sha256 for store in blobs.copies for item in store.items() if item.kind in kinds} - there
    for sha256 in sorted(missing):
        blobs.upload(sha256)
    here.say({"uploaded": len(missing)}, f"{counted(len(missing), 'file')} uploaded")


def _each(here: Context, done: str, kind: Any, change: Callable[[Blobs, Item], bool]) -> None:
    """Change every file of one kind in every store; what cannot be is told at the end, and the rest done."""
    changed, bad = 0, list[SalverError]()
    for _, store in _stores(here):
        for item in [each for each in store.items() if each.kind is kind]:
            try:
                changed += change(store, item)
            except SalverError as error:
                if error.code != "CORRUPT_ARTIFACT":
                    raise
                bad.append(error)
    here.say(
        {"changed": changed, "bad": [error.message for error in bad]},
        "\n".join([f"{counted(changed, 'file')} {done}", *(f"left as it is: {error.message}" for error in bad)]),
    )
    if bad:
        raise Exit(1)


def _stores(here: Context) -> list[tuple[str, Blobs]]:
    """The store of the home and its copies on this machine, by what a person would call them."""
    from salver.storage.opening import open_blobs

    blobs = open_blobs(here.home())
    place = _settings(here).artifacts or "home"
    return [(place, blobs), *(("cache", copy) for copy in blobs.copies)]


def _settings(here: Context) -> StorageSettings:
    from salver.storage.settings import read_storage_settings

    return read_storage_settings(here.home().path)
