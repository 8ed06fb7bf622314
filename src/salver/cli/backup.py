"""`salver backup` and `salver restore`: a home as one file, and back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.tables import counted
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.storage.backup_archive import BackupManifest

__all__ = ["add_to"]

_PASSPHRASE_BYTES: Final = 4096
_SHORTEST: Final = 12


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("backup", epilog="Example: salver backup /backup/monday.tar.gz")(backup)
    app.command("restore", epilog="Example: salver restore /backup/monday.tar.gz --home /var/lib/salver")(restore)


def backup(
    context: typer.Context,
    file: Path = typer.Argument(help="The new file; .tar, or .tar.gz to compress it."),
    without_secrets: bool = typer.Option(False, "--without-secrets", help="Leave out keys and the admin token."),
    passphrase_file: Path | None = typer.Option(
        None, help="Encrypt the backup with the passphrase in this file.", show_default=False
    ),
    plain: bool = typer.Option(False, "--plain", help="Write artifacts unencrypted that the home keeps encrypted."),
) -> None:
    """Write everything in the home to one file. It is of one moment, also while the home serves."""
    from salver.clock import SYSTEM_CLOCK
    from salver.storage.backup import make_backup

    here: Context = context.obj
    passphrase = _passphrase(passphrase_file)
    with _progress(here, "backing up") as show:
        manifest = make_backup(
            here.home(),
            file,
            SYSTEM_CLOCK,
            secrets=not without_secrets,
            passphrase=passphrase,
            plain=plain,
            on_progress=show,
        )
    size_bytes = file.stat().st_size
    here.say(_document(manifest, size_bytes), f"wrote {file} ({size_bytes / 2**20:,.1f} MiB): {_summary(manifest)}")
    if manifest.secrets and passphrase is None:
        here.note("the file holds the secrets of the home as they are: keep it as safe, or give --passphrase-file")


def restore(
    context: typer.Context,
    file: Path = typer.Argument(help="A file that `salver backup` made."),
    passphrase_file: Path | None = typer.Option(
        None, help="The passphrase of an encrypted backup, in this file.", show_default=False
    ),
) -> None:
    """Make a home from a backup. --home names the new directory; everything is checked before."""
    from salver.storage.restore import restore_backup

    here: Context = context.obj
    with _progress(here, "restoring") as show:
        manifest = restore_backup(file, here.home_path, passphrase=_passphrase(passphrase_file), on_progress=show)
    here.say(_document(manifest, file.stat().st_size), f"{here.home_path} is restored: {_summary(manifest)}")
    if not manifest.secrets:
        here.note("the backup has no secrets: tokens and webhooks need to be made anew, and a new key signs")


def _passphrase(path: Path | None) -> bytes | None:
    if path is None:
        return None
    passphrase = read_file(path)[:_PASSPHRASE_BYTES].rstrip(b"\r\n")
    if len(passphrase) < _SHORTEST:
        raise SalverError(
            "INVALID_SETTING",
            f"the passphrase has {len(passphrase)} bytes",
            f"use {_SHORTEST} or more; `head -c 24 /dev/urandom | base64` makes a good one",
        )
    return passphrase


def _document(manifest: BackupManifest, size_bytes: int) -> dict[str, Any]:
    return {
        "file_bytes": size_bytes,
        "made_s": manifest.made_s,
        "salver": manifest.salver,
        "versions": manifest.versions,
        "records": manifest.records,
        "last_hash": manifest.last_hash,
        "secrets": manifest.secrets,
        "files": len(manifest.members),
    }


def _summary(manifest: BackupManifest) -> str:
    secrets = "with" if manifest.secrets else "without"
    return (
        f"{counted(manifest.versions, 'version')}, {counted(manifest.records, 'record')} in the journal, "
        f"{counted(len(manifest.members), 'file')}, {secrets} secrets"
    )


@contextlib.contextmanager
def _progress(here: Context, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar for people who look."""
    if here.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
