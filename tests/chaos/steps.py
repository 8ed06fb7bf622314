"""Commands that are killed at the n-th thing they do to a home, and what the home must be then."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.checks.home_checks import kept, run, sound
from tests.storage.deaths import deaths

__all__ = ["COMMANDS", "attempts", "prepared"]

_ACT: Final = """
import contextlib, io
from salver.cli.app import run
import onnxruntime
import salver.control.administration, salver.control.registration, salver.registry.collection, salver.storage.sqlite
import salver.control.actions, salver.control.remote, salver.control.occasions, salver.storage.remote_blobs
def act(home, *words):
    with contextlib.redirect_stdout(io.StringIO()):
        code = run(["--json", "--home", home, *words])
    assert code == 0, words
"""
COMMANDS: Final[dict[str, list[str]]] = {
    "register": ["register", "double", "{new}", "--tag", "team=risk", "--set", "owner=Ann"],
    "promote": ["promote", "double@1.0.1", "validation", "--why", "a test"],
    "deploy": ["deploy", "double@1.0.1"],
    "alias": ["alias", "set", "double", "champion", "1.0.1"],
    "token": ["token", "create", "eve", "--role", "predictor"],
    "collect": ["storage", "collect", "--grace", "0"],
    "head": ["audit", "head"],
}
"""Each changes the prepared home."""


def prepared(place: Path, models: Iterable[Path], stray: bytes) -> None:
    """A home with two versions of `double`, one of them deployed, and a file that no version has."""
    for model in models:
        run(place, "register", "double", model)
    run(place, "deploy", "double@1.0.0")
    run(place, "alias", "set", "double", "champion", "1.0.0")
    from salver.storage.home import Home
    from salver.storage.opening import open_blobs

    source = place.parent / "stray"
    source.write_bytes(stray)
    open_blobs(Home.open(place)).put_file(source)


def attempts(
    home: Path, words: list[str], scratch: Path, numbers: Iterable[int], *, spoil: Callable[[Path], None] | None = None
) -> int:
    """Kill the command at each of these steps, on a copy of the home; how many deaths there were.

    Each time the home must be as before or as after, sound after the next command, and the command must succeed when
    it is repeated.
    """
    with _copy(home, scratch) as whole:
        if spoil:
            spoil(whole)
        before = kept(whole)
        run(whole, *words)
        after = kept(whole)
        sound(whole)
    died = 0
    with deaths(_ACT) as die:
        for number in numbers:
            with _copy(home, scratch) as place:
                if spoil:
                    spoil(place)
                if not die(number, place, *words):
                    return died
                died += 1
                now = kept(place)
                assert now in (before, after), f"{words} killed at step {number} left {now}"
                sound(place)
                if words[0] != "token" and died % 4 == 0:
                    run(place, *words)  # which has happened, or happens now
                    assert kept(place)["versions"] == after["versions"]
    return died


@contextlib.contextmanager
def _copy(home: Path, scratch: Path) -> Iterator[Path]:
    place = scratch / "copy"
    shutil.copytree(home, place)
    try:
        yield place
    finally:
        shutil.rmtree(place)
