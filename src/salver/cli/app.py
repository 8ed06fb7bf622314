"""Assembling the commands, and turning what they raise into words and exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from salver.cli import deployments, develop, doctor, models, predict, serve, status, tokens
from salver.cli.context import Context, Exit
from salver.config import default_home
from salver.protocol.errors import SalverError

__all__ = ["app", "run"]

_REFUSED: Final = frozenset({"REFUSED_BY_POLICY", "PERMISSION_DENIED", "UNAUTHENTICATED"})
_UsageError: Final = typer.BadParameter.__mro__[1]
"""click's UsageError, which typer carries inside without exporting it."""

app = typer.Typer(
    name="salver",
    help="Serve machine-learning models. Try: salver dev model.onnx",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _globals(
    context: typer.Context,
    home: Path | None = typer.Option(None, help="Data directory (SALVER_HOME, default ~/.salver).", show_default=False),
    json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    context.obj = Context(home or default_home(), json)


for _module in (models, deployments, serve, develop, predict, status, tokens, doctor):
    _module.add_to(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = _globals_first(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        result = app(given, standalone_mode=False)
    except Exit as ended:
        return ended.code
    except SalverError as error:
        _complain(as_json, error.code, error.message, error.remedy)
        return 3 if error.code in _REFUSED else 1
    except _UsageError as error:
        _complain(as_json, "USAGE", error.format_message(), "see `salver --help` and `salver COMMAND --help`")
        return 2
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    return result if isinstance(result, int) else 0


def _globals_first(arguments: list[str]) -> list[str]:
    """Move `--home` and `--json` in front, so that they may also stand after the command."""
    front: list[str] = []
    rest: list[str] = []
    items = iter(arguments)
    for item in items:
        if item == "--":
            rest += [item, *items]
        elif item == "--json" or item.startswith("--home="):
            front.append(item)
        elif item == "--home":
            front += [item, *[value for value in [next(items, None)] if value is not None]]
        else:
            rest.append(item)
    return front + rest


def _complain(as_json: bool, code: str, message: str, remedy: str) -> None:
    if as_json:
        error: dict[str, Any] = {"error": {"code": code, "message": message, "remedy": remedy}}
        sys.stderr.write(msgspec.json.encode(error).decode() + "\n")
    else:
        sys.stderr.write(f"error: {message}\n")
        if remedy:
            sys.stderr.write(f"  try: {remedy}\n")
