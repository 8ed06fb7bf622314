"""Odd texts in every text that a command takes, by the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import typer
from tests.checks.odd_texts import ODD_TEXTS, SHARP_TEXTS

from salver.cli.app import app

__all__ = ["COMMANDS", "attempts"]

_STAY: Final = frozenset({("serve",), ("dev",), ("watch",), ("container",)})
"""Commands that do not end, or run programs of others."""
_VALID: Final = {"version": "1.0.0", "role": "predictor", "url": "https://a.example/", "seq": "1", "at": "2026-01-01"}
_UNDECODABLE: Final = "double\udcff"
"""What Python makes of an argument that is not UTF-8."""
_FILE_TEXTS: Final = {name: text for name, text in SHARP_TEXTS.items() if "/" not in text}


def _leaves(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _leaves(command, (*above, name))
        else:
            yield (*above, name), command


COMMANDS: Final = {words: command for words, command in _leaves(typer.main.get_command(app)) if words not in _STAY}


def attempts(words: tuple[str, ...]) -> Iterator[list[str]]:
    """All argument lists that are tried on a command: in each of its texts each odd one, and the rest as it may be."""
    command = COMMANDS[words]
    kinds = {name: each.annotation for name, each in inspect.signature(command.callback).parameters.items()}
    texts = {each.name: each for each in command.params if _holds(kinds.get(each.name), str, Path)}
    for name, odd in texts.items():
        is_file = _holds(kinds[name], Path)
        for text in (*(_FILE_TEXTS if is_file else ODD_TEXTS).values(), _UNDECODABLE):
            given: list[str] = []
            options: list[str] = []
            for each in command.params:
                value = text if each is odd else _VALID.get(each.name, "double")
                if each.param_type_name == "argument":
                    given += [value] if each.required or each is odd else []
                elif each is odd or each.required:
                    options += [f"{each.opts[0]}={value}"]
            yield [*words, *options, "--", *given] if given else [*words, *options]


def _holds(annotation: Any, *wanted: type) -> bool:
    annotation = {"str": str, "Path": Path, "str | None": str, "Path | None": Path, "list[str]": str}.get(
        annotation, annotation
    )
    return annotation in wanted or any(_holds(each, *wanted) for each in get_args(annotation))
