"""One thing has one name: in the options of all commands, and in the JSON of all actions."""

from __future__ import annotations

import typing
from collections import defaultdict
from collections.abc import Iterator

import msgspec
import typer

from salver.cli.app import app
from salver.control.actions import ACTIONS

OPTIONS = {
    "--comment": "--why",
    "--events": "--action",
    "--file": "--description, --document, --input or --data",
    "--key": "--public-key",
    "--memory": "--worker-memory",
    "--model": "--artifact",
    "--output": "--out",
}
"""What an option is not called, and what it is called instead."""
FIELDS = {
    "approver": "approved_by",
    "by": "deployed_by, recorded_by, ...",
    "comment": "why",
    "consumers": "clients",
    "events": "actions",
    "fingerprint": "key_id",
    "from_s": "since_s",
    "principal": "actor",
    "seconds": "duration_s",
    "to_s": "until_s",
    "tries": "attempts",
    "who": "actor",
}
ITEMS = frozenset({"History"})
"""Structures whose `events` are events, and no names of actions."""


def options(group: typing.Any, words: str = "salver") -> Iterator[tuple[str, str, bool]]:
    """Command, option, and whether it takes no value."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from options(command, f"{words} {name}")
        else:
            yield from (
                (f"{words} {name}", each, p.is_flag) for p in command.params for each in p.opts if each[0] == "-"
            )


def structures(kind: typing.Any, found: dict[str, list[str]]) -> None:
    """Add the structures within a type, each with its fields as they stand in JSON."""
    for part in typing.get_args(kind):
        structures(part, found)
    kind = typing.get_origin(kind) or kind
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in found:
        found[kind.__name__] = [each.encode_name for each in msgspec.structs.fields(kind)]
        for each in typing.get_type_hints(kind).values():
            structures(each, found)


def answered() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for action in ACTIONS:
        structures(action.asked, found)
        structures(action.answer, found)
    return found


def test_options_have_the_names_of_the_house() -> None:
    assert [(c, o, OPTIONS[o]) for c, o, _ in options(typer.main.get_command(app)) if o in OPTIONS] == []


def test_an_option_takes_a_value_in_all_commands_or_in_none() -> None:
    flags = defaultdict(set)
    for _, option, is_flag in options(typer.main.get_command(app)):
        flags[option].add(is_flag)
    assert [option for option, several in flags.items() if len(several) > 1] == []


def test_fields_have_the_names_of_the_house() -> None:
    found = answered()
    assert len(found) > 100
    wrong = [(s, f, FIELDS[f]) for s, fields in found.items() if s not in ITEMS for f in fields if f in FIELDS]
    assert wrong == []


def test_who_has_done_what_stands_beside_when() -> None:
    """`recorded_by` with `recorded_s`; `at_s` is the time of an event, whose `actor` is who did it."""
    mixed = [s for s, fields in answered().items() if "at_s" in fields and any(f.endswith("_by") for f in fields)]
    assert mixed == []
