"""`salver watch`: register what appears in a model repository."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from salver.cli.context import Context, Exit
from salver.protocol.errors import SalverError
from salver.protocol.printable import printable

if TYPE_CHECKING:
    from salver.watching import Report, Source

__all__ = ["add_to"]

_ONCE_S: Final = 300.0
"""How long --once waits for what is being written."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("watch", epilog="Example: salver watch /srv/models --deploy")(watch)


def watch(
    context: typer.Context,
    source: str = typer.Argument(
        metavar="SOURCE", help="A model repository as Triton or TensorFlow Serving has it: a directory, or s3://..."
    ),
    once: bool = typer.Option(
        False, "--once", help="Take what is there and end, with exit code 1 if some was refused."
    ),
    deploy: bool = typer.Option(False, "--deploy", help="Keep the newest version of each model deployed."),
    settle: float = typer.Option(5.0, min=0.0, help="Seconds for which nothing of a version may have changed."),
    every: float = typer.Option(10.0, min=0.1, help="Seconds between two looks at a bucket."),
    done_marker: str = typer.Option("", help="Take only versions with a file of this name, and those at once."),
    trust_code: bool = typer.Option(False, "--trust-code", help="Vouch for pickles, as for `salver register`."),
    converter: Path | None = typer.Option(None, help="The Python that has tensorflow and tf2onnx, for SavedModels."),
) -> None:
    """Register what appears in a model repository. Each version of the other server's directory once.

    What is still being written is left until it is quiet; what cannot be registered is said once and passed by.
    """
    from salver.clock import SYSTEM_CLOCK
    from salver.storage.opening import open_blobs
    from salver.watching import Watcher, WatchOptions

    here: Context = context.obj
    home = here.home(make=True)
    options = WatchOptions(
        settle_s=settle,
        every_s=every,
        done_marker=done_marker,
        deploy=deploy,
        trust_code=trust_code,
        converter=converter,
    )
    watcher = Watcher(
        _source(here, source),
        here.administration,
        lambda: open_blobs(home),
        options,
        SYSTEM_CLOCK,
        lambda report: _say(here, report),
    )
    if not once:
        watcher.run(threading.Event())
    elif not watcher.once(_ONCE_S):
        raise Exit(1)


def _say(here: Context, report: Report) -> None:
    if here.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        what = f" as {report.reference}" if report.reference else ""
        said = f"{report.event} {report.source}{what}{f': {report.reason}' if report.reason else ''}"
        sys.stdout.write(printable(said) + "\n")
    sys.stdout.flush()


def _source(here: Context, source: str) -> Source:
    from salver.watching import BucketSource, DirectorySource

    if source.startswith("s3://"):
        from salver.storage.s3_bucket import S3Bucket
        from salver.storage.settings import read_storage_settings

        return BucketSource(S3Bucket(source, read_storage_settings(here.home().path).s3))
    if "://" in source:
        raise SalverError("INVALID_SETTING", f"{source[:80]!r} is no place that can be watched", "use s3:// or a path")
    return DirectorySource(Path(source))
