"""`salver doctor`: is this machine and this home fit to serve?"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from salver.cli.context import Context, Exit
from salver.cli.tables import table
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest

if TYPE_CHECKING:
    from salver.storage.home import Home

__all__ = ["add_to"]

_FREE_BYTES = 2**30
_DESCRIPTORS = 4096


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: `ok`, `warning` or `error`, and what to do."""

    check: str
    state: str
    found: str
    remedy: str = ""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("doctor", epilog="Example: salver doctor --json")(doctor)


def doctor(context: typer.Context) -> None:
    """Check the machine and the home. Reads every stored byte and walks the audit journal."""
    here: Context = context.obj
    findings = [*_machine(), *_formats(), *_home(here)]
    rows = [[each.state, each.check, each.found, each.remedy] for each in findings]
    here.say(findings, table(["state", "check", "found", "what to do"], rows))
    if any(each.state == "error" for each in findings):
        raise Exit(1)


def _machine() -> Iterator[Finding]:
    version = sys.version.split()[0]
    yield Finding("python", "ok", version)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= _DESCRIPTORS
    remedy = "" if enough else f"ulimit -n {min(hard, 65536)}: every connection takes one"
    yield Finding("open files", "ok" if enough else "warning", str(soft), remedy)
    yield Finding("processors", "ok", str(len(os.sched_getaffinity(0))))


def _formats() -> Iterator[Finding]:
    from salver.protocol.formats import FORMATS
    from salver.runtime.formats import format_named

    for name in FORMATS:
        try:
            format_named(name)
        except SalverError as error:
            yield Finding(f"format {name}", "warning", error.message, error.remedy)
        else:
            yield Finding(f"format {name}", "ok", "available")


def _home(here: Context) -> Iterator[Finding]:
    try:
        home = here.home()
    except SalverError as error:
        yield Finding("home", "warning", error.message, error.remedy)
        return
    free = shutil.disk_usage(home.path).free
    state = "ok" if free > _FREE_BYTES else "warning"
    yield Finding("free disk", state, f"{free // 2**20:,} MiB", "" if state == "ok" else "free some space")
    yield from _private(home.path)
    serving = home.read_serving()
    yield Finding("server", "ok", f"pid {serving.pid} at {serving.http}" if serving else "none runs on this home")
    from salver.control.action import Nothing
    from salver.control.actions.audit import VERIFY
    from salver.control.actions.deletions import kept_versions
    from salver.control.actions.status import STATUS

    with here.administration() as admin:
        check = admin.do(VERIFY, Nothing())
        if check.ok:
            yield Finding("audit journal", "ok", f"{check.records} records, chain is whole")
        else:
            yield Finding("audit journal", "error", f"record {check.bad_seq}: {check.reason}", "restore from a backup")
        yield from _jobs(home)
        yield from _stored_bytes(here, kept_versions(admin))
        for endpoint in admin.do(STATUS, Nothing()).endpoints:
            if endpoint.problem:
                yield Finding(f"endpoint {endpoint.endpoint}", "error", endpoint.problem, "deploy a version that loads")


def _jobs(home: Home) -> Iterator[Finding]:
    if not home.jobs_path.exists():
        return
    from salver.storage.job_view import check_store

    try:
        found = check_store(home.jobs_path)
    except SalverError as error:
        remedy = "move jobs.db away, with jobs.db-wal and jobs.db-shm, while nothing serves: the jobs in it are lost"
        yield Finding("job store", "error", error.message, remedy)
    else:
        counts = ", ".join(f"{count} {word}" for word, count in found.items()) or "no jobs"
        yield Finding("job store", "ok", f"{counts}, {home.jobs_path.stat().st_size / 2**20:,.1f} MiB")


def _private(path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode & 0o777
    open_to_others = bool(mode & 0o077)
    yield Finding(
        "home is private",
        "error" if open_to_others else "ok",
        oct(mode),
        f"chmod 700 {path}" if open_to_others else "",
    )


def _stored_bytes(here: Context, manifests: Iterable[VersionManifest]) -> Iterator[Finding]:
    from salver.storage.opening import open_blobs
    from salver.storage.scrubbing import owners_of, scrub

    owners = owners_of(manifests)
    damaged = 0
    try:
        blobs = open_blobs(here.home())
        for bad in scrub(blobs, owners):
            damaged += 1
            yield Finding("stored bytes", "error", f"{', '.join(bad.references)}: {bad.problem}", bad.remedy)
        size = f"{blobs.usage_bytes() / 2**20:,.1f} MiB in the store"
    except SalverError as error:
        yield Finding("stored bytes", "error", error.message, error.remedy)
        return
    if not damaged:
        yield Finding("stored bytes", "ok", f"{len(owners)} files match their digests, {size}")
