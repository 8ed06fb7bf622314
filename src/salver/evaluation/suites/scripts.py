"""Suites from files: TOML, or Python that makes the same document and may judge in its own way.

A Python suite defines `SUITE`, the document that a TOML file would be, and may define functions `check_NAME`
of (rows, truth, predicted), plain lists and dictionaries, that return `{"verdict": "successful"}` or another
of the four, with `reasons` and `numbers`. Functions `perturb_NAME` of (rows, seed) return the columns they change
and are generators of behavioural tests. It is users' code: it runs in a process of its own, with a limit
on time and memory, and nothing of it is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from salver.evaluation.behaviour.perturbations import Perturbation
from salver.evaluation.check import Check
from salver.evaluation.reports.results import CheckResult, Role
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.script_process import CHECK_PREFIX, PERTURB_PREFIX, Answer, Given, Order
from salver.evaluation.suites.service_sections import beside
from salver.evaluation.suites.suite import Suite, decode_suite, digest_of
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.runtime.asking import ask_child
from salver.runtime.child import Ended

__all__ = ["ReadSuite", "ScriptCheck", "ScriptPerturbation", "read_suite"]

_READ_S: Final = 60.0
_CHECK_S: Final = 600.0
_MOST_SENT_BYTES: Final = 2**30
_MOST_ANSWERED_BYTES: Final = 64 * 2**20


class ReadSuite(NamedTuple):
    """A suite, the digest of its file, and the checks that its script brings."""

    suite: Suite
    digest: str
    checks: tuple[Check, ...] = ()
    perturbations: Mapping[str, Perturbation] = {}
    """The generators that its script brings, by the names that tests give them."""


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a script's check returns."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    numbers: dict[str, str | int | float | None] = {}


def read_suite(path: Path) -> ReadSuite:
    """Read a suite; raises INVALID_SETTING naming what is wrong with it. The digest is that of this one file."""
    content, digest = digest_of(path, path.name)
    if path.suffix == ".py":
        answer = _run(Order(str(path.absolute())), _READ_S)
        checks = tuple(ScriptCheck(path, name) for name in answer.checks)
        own = {name.removeprefix(PERTURB_PREFIX): ScriptPerturbation(path, name) for name in answer.perturbations}
        return ReadSuite(
            _located(decode_suite(msgspec.json.decode(answer.result), path.name), path), digest, checks, own
        )
    if path.suffix != ".toml":
        raise SalverError("INVALID_SETTING", f"suite {path.name!r} is neither TOML nor Python", "call it NAME.toml")
    try:
        document = msgspec.toml.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError(
            "INVALID_SETTING", f"suite {path.name!r} is no TOML: {error}", "docs/evaluation.md shows one"
        ) from None
    return ReadSuite(_located(decode_suite(document, path.name), path), digest)


def _located(suite: Suite, path: Path) -> Suite:
    """The suite with the files that it names found beside it."""
    changed: dict[str, Any] = {}
    for name in ("leakage", "fit"):
        section = getattr(suite, name)
        if section is not None and section.training:
            changed[name] = msgspec.structs.replace(section, training=str(path.absolute().parent / section.training))
    return beside(msgspec.structs.replace(suite, **changed), path.absolute().parent)


class ScriptCheck:
    """A function of a Python suite, run in a process of its own each time."""

    role = Role.SAFEGUARD

    def __init__(self, path: Path, function: str) -> None:
        self.name = function.removeprefix(CHECK_PREFIX)
        self._path = path
        self._function = function

    def run(self, subject: Subject) -> CheckResult:
        """Hand over the rows, what is true of them and what was predicted."""
        rows = {name: column.astype(object).tolist() for name, column in subject.rows.columns.items()}
        predicted = subject.predictions
        said: dict[str, list[Any]] = {}
        truth: list[Any] = subject.truth.target.tolist()
        if predicted.labels is not None:
            names = subject.truth.classes
            truth = [names[index] for index in subject.truth.target]
            said["labels"] = [names[index] for index in predicted.labels]
        if predicted.probabilities is not None:
            said["probabilities"] = predicted.probabilities.tolist()
        if predicted.values is not None:
            said["values"] = predicted.values.tolist()
        order = Order(str(self._path.absolute()), check=self._function, given=_given(Given(rows, truth, said)))
        try:
            found = msgspec.json.decode(_run(order, _CHECK_S).result, type=_Said)
        except msgspec.ValidationError as error:
            raise SalverError(
                "INVALID_SETTING",
                f"{self._function} of {self._path.name!r} returned no verdict: {error}",
                'return {"verdict": "successful", "reasons": [...], "numbers": {...}}',
            ) from None
        return CheckResult(found.verdict, found.reasons, found.numbers)


class ScriptPerturbation:
    """A generator of a Python suite, run in a process of its own each time."""

    def __init__(self, path: Path, function: str) -> None:
        self._path = path
        self._function = function

    def __call__(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """The rows with the columns that the function returns in place of theirs."""
        sent = {name: column.astype(object).tolist() for name, column in rows.columns.items()}
        given = Given(sent, seed=int(rng.integers(2**31)))
        order = Order(str(self._path.absolute()), perturb=self._function, given=_given(given))
        returned = msgspec.json.decode(_run(order, _CHECK_S).result)
        if not isinstance(returned, dict) or not all(
            name in rows.columns and isinstance(cells, list) and len(cells) == len(rows)
            for name, cells in returned.items()
        ):
            raise SalverError(
                "INVALID_SETTING",
                f"{self._function} of {self._path.name!r} returned no columns of {len(rows)} cells each",
                "return a dictionary from names of columns to lists as long as those given",
            )
        try:
            return rows.replaced(**{name: _as_column(cells, rows.column(name)) for name, cells in returned.items()})
        except (ValueError, TypeError) as error:
            raise SalverError(
                "INVALID_SETTING",
                f"{self._function} of {self._path.name!r}: {str(error)[:200]}",
                "columns of numbers take numbers",
            ) from None


def _as_column(cells: list[Any], known: Array) -> Array:
    """Cells as a column of the kind it was; an absent number is NaN."""
    if known.dtype.kind == "O":
        column = np.empty(len(cells), dtype=object)
        column[:] = [None if cell is None else str(cell) for cell in cells]
        return column
    if known.dtype.kind not in "biuf":
        return np.array(cells, dtype=known.dtype)
    numbers = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    whole = known.dtype.kind in "biu" and bool(np.equal(numbers, np.rint(numbers)).all())
    return numbers.astype(known.dtype) if whole else numbers


def _run(order: Order, limit_s: float) -> Answer:
    """What the script answers; raises INVALID_SETTING for what it raises, and when it does not answer in time."""
    name = Path(order.path).name
    if len(order.given) > _MOST_SENT_BYTES:
        raise SalverError(
            "INVALID_SETTING", f"the rows are {len(order.given)} bytes as JSON, too many for a script", "use fewer rows"
        )
    answer = ask_child(
        "salver.evaluation.suites.script_process",
        order,
        Answer,
        limit_s=limit_s,
        answer_bytes=_MOST_ANSWERED_BYTES,
        shown=True,
    )
    if isinstance(answer, Ended):
        raise SalverError("INVALID_SETTING", f"suite {name!r} {answer.why}", "correct the script")
    return answer


def _given(given: Given) -> bytes:
    return msgspec.json.encode(given, enc_hook=str)
