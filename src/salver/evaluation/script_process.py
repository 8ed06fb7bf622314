"""`python -m salver.evaluation.script_process PATH PARENT`: the child that runs a suite written in Python.

It reads one order as JSON from standard input and answers with one document on what was its standard output;
what the script prints goes to standard error. The only place where such a script runs. It dies with its parent.
"""

from __future__ import annotations

import os
import resource
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.runtime.environment import allow_users_code, die_with_parent

__all__ = ["CHECK_PREFIX", "PERTURB_PREFIX", "Answer", "Order", "main"]

CHECK_PREFIX: Final = "check_"
PERTURB_PREFIX: Final = "perturb_"
_MEMORY_BYTES: Final = 8 * 2**30
_LONGEST_PROBLEM: Final = 500


class Order(msgspec.Struct, frozen=True):
    """What the script is asked: its suite, or what one of its checks says of these rows."""

    check: str = ""
    """The function to call; empty for the suite."""
    rows: dict[str, list[Any]] = {}
    truth: list[Any] = []
    predicted: dict[str, list[Any]] = {}
    perturb: str = ""
    """The function that changes these rows, instead of a check."""
    seed: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What came of it."""

    result: Any = None
    checks: list[str] = []
    perturbations: list[str] = []
    problem: str = ""
    """What the script raised; empty if it answered."""


def main() -> None:
    """Answer one order."""
    die_with_parent(int(sys.argv[2]))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    allow_users_code()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    with answers:
        answers.write(msgspec.json.encode(_answer(Path(sys.argv[1]), order)))


def _answer(path: Path, order: Order) -> Answer:
    sys.path.insert(0, str(path.parent))
    try:
        script = runpy.run_path(str(path), run_name="salver_suite")
        checks, perturbations = _functions(script, CHECK_PREFIX), _functions(script, PERTURB_PREFIX)
        if order.perturb:
            result = script[order.perturb](order.rows, order.seed)
        else:
            result = script[order.check](order.rows, order.truth, order.predicted) if order.check else script["SUITE"]
        msgspec.json.encode(result)
    except KeyError as missing:
        if missing.args == ("SUITE",):
            return Answer(problem="it defines no SUITE")
        return Answer(problem=_described(missing))
    except BaseException as error:  # noqa: BLE001 - whatever a script raises is told
        return Answer(problem=_described(error))
    return Answer(result, checks, perturbations)


def _functions(script: dict[str, Any], prefix: str) -> list[str]:
    return [name for name, value in script.items() if name.startswith(prefix) and callable(value)]


def _described(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()[:_LONGEST_PROBLEM]


if __name__ == "__main__":
    main()
