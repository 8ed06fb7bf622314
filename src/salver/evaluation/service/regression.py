"""Regression cases: what once went wrong must be right in every later version.

Each is the request of that day, answered as the data listener would. Nothing is sampled, so nothing is estimated:
one case that fails fails the version.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.exchanges import is_label, text_of
from salver.evaluation.subject.predictions import class_name
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.service_sections import CasesSettings
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec
from salver.protocol.verdict import Verdict
from salver.registry.cases import Case, Equal, Expectation, InRange, Labelled, Refused

__all__ = ["RegressionCheck", "complaint_of"]

_SERVER_FAULT: Final = 500
_SHOWN: Final = 50
_NAMED: Final = 3
_USUAL_LABELS: Final = ("label", "labels", "output_label", "class", "prediction")


class RegressionCheck:
    """Every case of the model, asked again."""

    name = "cases"
    role = Role.SAFEGUARD

    def __init__(self, settings: CasesSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Ask them all."""
        settings = self._settings
        known = [each for each in subject.given.cases if each.id not in settings.leave_out]
        left = [each.id for each in subject.given.cases if each.id in settings.leave_out]
        found = [(each, complaint_of(each.case, subject)) for each in known]
        failed = [(each, why) for each, why in found if why]
        verdict = Verdict.FAILED if failed else Verdict.SUCCESSFUL
        reasons = [f"{len(failed)} of {len(known)} cases fail"]
        reasons += [f"{each.source} ({each.id}): {why}" for each, why in failed[:_NAMED]]
        if len(known) < settings.required:
            if not failed:
                verdict = Verdict.INCONCLUSIVE
            reasons.append(f"there are {len(known)} cases, and {settings.required} are asked for")
        if left:
            reasons.append(f"this suite leaves out {', '.join(left[:_SHOWN])}")
        rows = tuple((each.id, each.source, why or "as expected") for each, why in (failed + found)[:_SHOWN])
        numbers: dict[str, Any] = {"cases": len(known), "failed": len(failed), "left_out": len(left)}
        table = ResultTable("Regression cases", ("case", "source", "found"), tuple(dict.fromkeys(rows)))
        return CheckResult(verdict, tuple(reasons), numbers, (table,) if rows else ())


def complaint_of(case: Case, subject: Subject) -> str:
    """What is wrong with the answer to a case; empty if nothing is. Raises what is no fault of the request."""
    refusal = next((each for each in case.expect if isinstance(each, Refused)), None)
    try:
        outputs = subject.asked.served.exchange(case.request.encode())
    except SalverError as error:
        if error.http >= _SERVER_FAULT:
            return f"it is answered with {error.code}: {error.message}"
        if refusal is None:
            return f"it is refused with {error.code}: {error.message}"
        if refusal.code and refusal.code != error.code:
            return f"it is refused with {error.code}, not with {refusal.code}"
        return ""
    if refusal is not None:
        return "it is answered, and must be refused"
    specs = {spec.name: spec for spec in subject.manifest.signature.outputs}
    return next((why for each in case.expect if (why := _unmet(each, outputs, specs))), "")


def _unmet(expected: Expectation, outputs: dict[str, Array], specs: dict[str, TensorSpec]) -> str:
    assert not isinstance(expected, Refused)
    name = expected.output or _meant(expected, outputs)
    if name not in outputs:
        wanted = f"output {name!r}" if name else f"an output for {type(expected).__name__.lower()}"
        return f"it has no {wanted}; there are {', '.join(outputs)}"
    array = outputs[name]
    if isinstance(expected, Labelled):
        return _other_label(expected, name, array, specs[name])
    if isinstance(expected, InRange):
        return _outside(expected, name, array, specs[name])
    return _unequal(expected, name, array)


def _meant(expected: Expectation, outputs: dict[str, Array]) -> str:
    """The output an expectation that names none is about; empty where that cannot be told."""
    if len(outputs) == 1:
        return next(iter(outputs))
    if isinstance(expected, Labelled):
        named = [name for name in _USUAL_LABELS if name in outputs]
        fitting = [name for name, array in outputs.items() if is_label(array)]
    else:
        named = []
        fitting = [name for name, array in outputs.items() if not is_label(array)]
    return named[0] if named else fitting[0] if len(fitting) == 1 else ""


def _other_label(expected: Labelled, name: str, array: Array, spec: TensorSpec) -> str:
    wanted = class_name(expected.label)
    if not is_label(array):
        if array.ndim != 2 or len(spec.labels) != array.shape[1]:
            return f"output {name!r} holds numbers, no labels"
        array = np.array(spec.labels, dtype=object)[array.argmax(axis=1)]
    said = {class_name(value) for value in array.reshape(-1)} - {wanted}
    return f"{name} is {', '.join(sorted(said)[:5])}, not {wanted}" if said or not array.size else ""


def _outside(expected: InRange, name: str, array: Array, spec: TensorSpec) -> str:
    if is_label(array) and array.dtype.kind not in "biu":
        return f"output {name!r} holds no numbers"
    if expected.column is not None:
        column = expected.column
        if isinstance(column, str):
            if column not in spec.labels:
                return f"output {name!r} has no column {column!r}"
            column = spec.labels.index(column)
        if array.ndim < 2 or not 0 <= column < array.shape[1]:
            return f"output {name!r} has no column {column}"
        array = array[:, column]
    numbers = array.astype(np.float64).reshape(-1)
    low = -np.inf if expected.at_least is None else expected.at_least
    high = np.inf if expected.at_most is None else expected.at_most
    bad = numbers[~((numbers >= low) & (numbers <= high))]
    return f"{name} is {bad[0]:.6g}, not within {low:g} to {high:g}" if len(bad) or not numbers.size else ""


def _unequal(expected: Equal, name: str, array: Array) -> str:
    try:
        wanted = np.array(expected.values, dtype=str if is_label(array) else np.float64)
    except (ValueError, TypeError):
        return f"{name} is not {str(expected.values)[:60]}, which is no array of its kind"
    if wanted.size != array.size:
        return f"{name} has {array.size} values, not {wanted.size}"
    if is_label(array):
        said = text_of(array).reshape(-1)
        differing = np.flatnonzero(said != wanted.reshape(-1))
        return f"{name} is {said[differing[0]]}, not {wanted.reshape(-1)[differing[0]]}" if len(differing) else ""
    said = array.astype(np.float64).reshape(-1)
    off = np.abs(said - wanted.reshape(-1))
    worst = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    if off[worst] <= expected.tolerance:
        return ""
    return f"{name} is {said[worst]:.6g}, not {wanted.reshape(-1)[worst]:.6g} within {expected.tolerance:g}"
