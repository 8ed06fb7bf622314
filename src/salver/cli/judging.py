"""What commands that judge a version share: exit codes, what becomes of faults, evidence, and a bar for who waits."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from salver.cli.context import Context, Exit, in_a_line
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version
from salver.protocol.verdict import Verdict

__all__ = ["EXIT_CODES", "end_with", "judging", "keep_evidence", "progress", "require_within"]

EXIT_CODES: Final = {Verdict.SUCCESSFUL: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 2, Verdict.ERROR: 3}


@contextlib.contextmanager
def judging() -> Iterator[None]:
    """End the command with the code of *error* for whatever goes wrong: 1 would say that the version is bad."""
    try:
        yield
    except SalverError as error:
        raise Exit(EXIT_CODES[Verdict.ERROR], error) from None
    except Exception as error:
        if os.environ.get("SALVER_DEBUG"):
            raise
        hidden = SalverError("INTERNAL", in_a_line(error), "set SALVER_DEBUG=1 to see where it happened")
        raise Exit(EXIT_CODES[Verdict.ERROR], hidden) from error


def end_with(verdict: Verdict) -> None:
    """End the command with the code of its verdict, unless that is 0."""
    if EXIT_CODES[verdict]:
        raise Exit(EXIT_CODES[verdict])


def require_within(option: str, value: float, low: float, high: float) -> None:
    """Raise INVALID_PARAMETER for an option that is not from `low` to `high`."""
    if not low <= value <= high:
        raise SalverError("INVALID_PARAMETER", f"--{option} is {value:g}", f"use {low:g} to {high:g}")


def keep_evidence(here: Context, reference: str, document: dict[str, Any]) -> str:
    """Record what was found about NAME@VERSION as evidence for gates; returns its id."""
    from salver.control.actions.evidence import RECORD_EVALUATION, NewEvaluation

    with here.administration() as admin:
        return admin.do(RECORD_EVALUATION, NewEvaluation(*named_version(reference), document)).evaluation.id


@contextlib.contextmanager
def progress(here: Context) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on the side, where a person looks on: called with the step, how many are done, and how many there are."""
    if here.json or not sys.stderr.isatty():
        yield lambda _, __, ___: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1)
        yield lambda step, done, steps: bar.update(task, description=step, completed=done, total=steps)
