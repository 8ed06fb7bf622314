"""`python -m salver.evaluation.suites.script_process`: the only place where a suite in Python runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError
from salver.runtime.asking import answer_once
from salver.runtime.environment import allow_users_code

__all__ = ["CHECK_PREFIX", "PERTURB_PREFIX", "Answer", "Given", "Order", "main"]

CHECK_PREFIX: Final = "check_"
PERTURB_PREFIX: Final = "perturb_"


class Order(msgspec.Struct, frozen=True):
    """What the script is asked: its suite, or what one of its functions says of rows."""

    path: str
    check: str = ""
    """The function that judges; without any function, the suite is asked for."""
    perturb: str = ""
    """The function that changes rows, instead."""
    given: bytes = b"{}"
    """`Given`, as JSON: a script sees null where a number is missing."""


class Given(msgspec.Struct, frozen=True):
    """The rows, as plain lists, and what belongs to them."""

    rows: dict[str, list[Any]] = {}
    truth: list[Any] = []
    predicted: dict[str, list[Any]] = {}
    seed: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What came of it."""

    result: bytes
    """As JSON."""
    checks: list[str] = []
    perturbations: list[str] = []


def main() -> None:
    """Answer one order."""
    allow_users_code()
    answer_once(Order, _answer)


def _answer(order: Order) -> Answer:
    path = Path(order.path)
    sys.path.insert(0, str(path.parent))
    script = runpy.run_path(str(path), run_name="salver_suite")
    given = msgspec.json.decode(order.given, type=Given)
    if order.perturb:
        result = script[order.perturb](given.rows, given.seed)
    elif order.check:
        result = script[order.check](given.rows, given.truth, given.predicted)
    elif "SUITE" in script:
        result = script["SUITE"]
    else:
        raise SalverError("INVALID_SETTING", f"suite {path.name!r} defines no SUITE", "SUITE = {'suite': {...}, ...}")
    return Answer(msgspec.json.encode(result), _functions(script, CHECK_PREFIX), _functions(script, PERTURB_PREFIX))


def _functions(script: dict[str, Any], prefix: str) -> list[str]:
    return [name for name, value in script.items() if name.startswith(prefix) and callable(value)]


if __name__ == "__main__":
    main()
