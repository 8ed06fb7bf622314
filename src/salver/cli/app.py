"""Assembling the commands, and turning what they raise into words and exit codes."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Final, cast

import typer

from salver.cli import (
    audit,
    backup,
    bench,
    cards,
    cases,
    changes,
    checking,
    compare,
    container,
    deployments,
    descriptions,
    develop,
    doctor,
    evaluate,
    export,
    history,
    holds,
    imports,
    isolated,
    jobs,
    keys,
    lifecycle,
    lineage,
    models,
    package,
    policy,
    predict,
    record,
    registry,
    reproduce,
    retire,
    retrain,
    search,
    serve,
    simulate,
    status,
    storage,
    tokens,
    watch,
    webhooks,
)
from salver.cli.context import Context, Exit, in_a_line, in_json
from salver.config import default_home
from salver.protocol.errors import SalverError
from salver.protocol.printable import printable
from salver.storage.snapshot import full_disk_is_reported

__all__ = ["app", "run"]

_REFUSED: Final = frozenset({"REFUSED_BY_POLICY", "PERMISSION_DENIED", "UNAUTHENTICATED"})
_ALSO: Final = "Every command takes --home DIR and --json, and --why TEXT: see salver --help."
_UsageError: Final = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""click's UsageError, which typer carries inside without exporting it."""

app = typer.Typer(
    name="salver",
    help=(
        "Serve machine-learning models.\n\n"
        "From a file to predictions in one command:  salver dev model.onnx\n\n"
        "Step by step:  salver register digits model.onnx;  salver deploy digits;  salver serve;  "
        "salver predict digits --input rows.npy"
    ),
    epilog="Example: salver register digits model.onnx --home /var/lib/salver --json",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _globals(
    context: typer.Context,
    home: Path | None = typer.Option(
        None, help="Data directory; else SALVER_HOME, else ~/.salver. Also after the command.", show_default=False
    ),
    json: bool = typer.Option(False, "--json", help="Print one JSON document. Also after the command."),
    why: str = typer.Option(
        "", help="Why something is changed, for the audit journal. Also after the command.", show_default=False
    ),
) -> None:
    context.obj = Context(home or default_home(), json, why)


for _module in (
    models,
    deployments,
    imports,
    watch,
    descriptions,
    registry,
    search,
    lineage,
    reproduce,
    serve,
    container,
    develop,
    predict,
    status,
    isolated,
    bench,
    record,
    simulate,
    tokens,
    audit,
    history,
    changes,
    lifecycle,
    policy,
    retire,
    holds,
    retrain,
    checking,
    cases,
    jobs,
    webhooks,
    package,
    export,
    keys,
    storage,
    backup,
    doctor,
    evaluate,
    compare,
    cards,
):
    _module.add_to(app)
for _typer in (app, *[group.typer_instance for group in app.registered_groups if group.typer_instance]):
    for _command in _typer.registered_commands:
        _command.epilog = f"{_command.epilog}\n\n{_ALSO}"


@functools.cache
def _assembled() -> Any:
    """The whole tree of commands, assembled once: that takes longer than most of them."""
    return typer.main.get_command(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = _globals_first(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        with full_disk_is_reported():
            result = _assembled()(given, standalone_mode=False, prog_name="salver")
    except Exit as ended:
        if ended.error is not None:
            _complain(as_json, ended.error.code, _as_typed(ended.error.message, given), ended.error.remedy)
        return ended.code
    except SalverError as error:
        _complain(as_json, error.code, _as_typed(error.message, given), error.remedy)
        return 3 if error.code in _REFUSED else 1
    except _UsageError as error:
        return _misused(as_json, error)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not try to write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - a person gets a line, not a stack trace
        odd = _odd_argument(error)
        if odd:
            _complain(as_json, "INVALID_PARAMETER", odd, "give another one")
            return 1
        if os.environ.get("SALVER_DEBUG"):
            traceback.print_exc()
        _complain(as_json, "INTERNAL", in_a_line(error), "set SALVER_DEBUG=1 to see where it happened")
        return 1
    return result if isinstance(result, int) else 0


def _misused(as_json: bool, error: Any) -> int:
    """Say what was wrong with the arguments; without any, show what there is."""
    command = error.ctx.command_path if error.ctx else "salver"
    message = " ".join(error.format_message().replace("Value error, ", "").split())
    if type(error).__name__ == "NoArgsIsHelpError":
        if not as_json:
            sys.stderr.write(error.format_message() + "\n")
            return 2
        _complain(as_json, "USAGE", "no command was given", f"see `{command} --help`")
        return 2
    _complain(as_json, "USAGE", message, f"see `{command} --help`")
    return 2


def _odd_argument(error: Exception) -> str:
    """What is wrong with the arguments, where an error can only come from them."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"the path {str(error.filename)[:80]!r}... is too long"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:80]!r} is not UTF-8"
    return ""


def _globals_first(arguments: list[str]) -> list[str]:
    """Move `--home`, `--json` and `--why` in front, so that they may also stand after the command."""
    front: list[str] = []
    rest: list[str] = []
    items = iter(arguments)
    for item in items:
        if item == "--":
            rest += [item, *items]
        elif item == "--json" or item.startswith(("--home=", "--why=")):
            front.append(item)
        elif item in ("--home", "--why"):
            front += [item, *[value for value in [next(items, None)] if value is not None]]
        else:
            rest.append(item)
    return front + rest


def _as_typed(message: str, given: list[str]) -> str:
    """The message with the options that were given in place of the fields that they set.

    >>> _as_typed("setting max_wait_s is -1.0", ["deploy", "digits", "--max-wait=-1"])
    '--max-wait is -1.0'
    """
    for option in (each.partition("=")[0] for each in given if each.startswith("--") and len(each) > len("--")):
        stem = re.escape(option[2:].replace("-", "_"))
        unit = "(?:_per_s|_s|_bytes|_ratio)"
        field = rf"setting (?:runtime\.)?{stem}{unit}?|`\$\.{stem}{unit}?`|\b{stem}{unit}"
        message = re.sub(rf"(?:{field})(?![\w.])", option, message)
    return message


def _complain(as_json: bool, code: str, message: str, remedy: str) -> None:
    if as_json:
        error: dict[str, Any] = {"error": {"code": code, "message": message, "remedy": remedy}}
        sys.stderr.write(in_json(error) + "\n")
    else:
        sys.stderr.write(printable(f"error: {message}\n"))
        if remedy:
            sys.stderr.write(printable(f"  try: {remedy}\n"))
