"""What a suite asks of a version: the file, read strictly.

A suite is TOML, or a Python file that makes the same document (`salver.evaluation.suites.scripts`). An unknown
setting is an error with the nearest known one named: a misspelt threshold must not pass everything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from salver.evaluation.reports.results import Role
from salver.evaluation.suites.limits import bounds
from salver.evaluation.suites.sections import (
    BehaviourSettings,
    CaseSettings,
    FairnessSettings,
    FitSettings,
    LeakageSettings,
    RobustnessSettings,
    behaviour_problems,
)
from salver.evaluation.suites.service_sections import (
    CasesSettings,
    ContractSettings,
    DataSettings,
    InfrastructureSettings,
    SkewSettings,
    service_problems,
)
from salver.protocol.errors import SalverError
from salver.protocol.nearest import did_you_mean

__all__ = [
    "About",
    "CalibrationSettings",
    "MetricSettings",
    "Outputs",
    "SatisficingSettings",
    "SliceSettings",
    "SplitSettings",
    "Suite",
    "WhereSettings",
    "decode_suite",
    "digest_of",
]

MOST_SUITE_BYTES: Final = 2**20
_SEE: Final = "docs/evaluation.md lists every setting"
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[suite]`."""

    name: str
    target: str
    """The column that holds what is true."""
    task: Literal["", "classification", "regression"] = ""
    """What is predicted; empty: told by the outputs."""
    features: tuple[str, ...] = ()
    """The columns of the input, in order; none: all but the target, the split's and the slices' columns."""
    classes: tuple[str | int, ...] = ()
    """What the columns of the probabilities stand for; none: the signature's labels, else the sorted targets."""
    positive: str | int = ""
    """The class that counts as positive where there are two; empty: the last one."""
    confidence: float = 0.95
    """With which each one-sided bound holds."""
    seed: int = 0
    resamples: int = 1000
    """Of each bootstrap."""
    batch_rows: int = 256
    """Rows of one request at most."""
    trained_on_other_rows: bool = False
    """Whether a version that says nothing of its training data is inconclusive."""


class Outputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[outputs]`: which output is what; empty for those to be recognised."""

    label: str = ""
    probabilities: str = ""
    score: str = ""
    """One number for each row: the probability of the positive class."""
    value: str = ""
    """What a regression predicts."""


class SplitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[split]`: which rows of the data are evaluated."""

    kind: Literal["none", "temporal", "stratified", "grouped"] = "none"
    column: str = ""
    """The time of `temporal`, the group of `grouped`; of `stratified` the target if empty."""
    test_ratio: float = 0.2
    seed: int = 0


class MetricSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[metric]]`: what is measured on the rows held out, and what it must reach."""

    name: str
    at_least: float | None = None
    at_most: float | None = None
    not_worse_than: str = ""
    """`production`, or a version that is given with --against."""
    margin: float = 0.0
    """By how much it may be worse than the other version and still count as no worse."""
    role: Role = Role.OPTIMISING


class SatisficingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[satisficing]]`: what a version costs."""

    name: Literal["latency_p50_s", "latency_p99_s", "size_bytes"]
    at_most: float
    requests: int = 500
    """Measured one after the other, a row each."""
    budget_s: float = 10.0
    """After which no further request is sent."""


class WhereSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[slices.where]]`: rows by a value or a range of a column, the lower end within."""

    name: str
    column: str
    equals: str | int | float | bool | None = None
    at_least: float | None = None
    below: float | None = None


class SliceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[slices]`: parts of the rows that must not be worse off."""

    columns: tuple[str, ...] = ()
    """Each value of such a column is a slice; of numbers each quantile bin."""
    where: tuple[WhereSettings, ...] = ()
    discover: bool = False
    """Whether slices of one and two columns are searched for the worst."""
    discover_columns: tuple[str, ...] = ()
    """Where they are searched; none: all columns but the target."""
    bins: int = 4
    min_support: int = 30
    """Rows that a slice, and its complement, has at least; smaller ones are not judged."""
    max_gap: float = 0.05
    """By how much the mean loss of a slice may exceed that of the other rows."""
    level: float = 0.05
    """Probability of finding any slice where none is worse."""


class CalibrationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[calibration]`: whether probabilities are what they say."""

    ece_at_most: float | None = None
    brier_at_most: float | None = None
    bins: int = 15


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole suite."""

    suite: About
    inputs: dict[str, tuple[str, ...]] = {}
    """The columns of each input, where they are not told by names."""
    outputs: Outputs = Outputs()
    split: SplitSettings = SplitSettings()
    metric: tuple[MetricSettings, ...] = ()
    satisficing: tuple[SatisficingSettings, ...] = ()
    slices: SliceSettings | None = None
    calibration: CalibrationSettings | None = None
    behaviour: tuple[BehaviourSettings, ...] = ()
    robustness: tuple[RobustnessSettings, ...] = ()
    fairness: FairnessSettings | None = None
    leakage: LeakageSettings | None = None
    fit: FitSettings | None = None
    cases: CasesSettings | None = None
    contract: tuple[ContractSettings, ...] = ()
    skew: SkewSettings | None = None
    data: DataSettings | None = None
    infrastructure: InfrastructureSettings | None = None

    @property
    def rivals(self) -> tuple[str, ...]:
        """The versions that the metrics want to be compared with, each once."""
        return tuple(dict.fromkeys(each.not_worse_than for each in self.metric if each.not_worse_than))


def digest_of(path: Path, called: str) -> tuple[bytes, str]:
    """The bytes of a suite and their SHA-256; raises INVALID_SETTING for one that cannot be read or is too large."""
    try:
        if path.stat().st_size > MOST_SUITE_BYTES:
            raise SalverError("INVALID_SETTING", f"suite {called!r} is larger than {MOST_SUITE_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise SalverError(
            "INVALID_SETTING", f"cannot read the suite {called!r}: {error.strerror}", "check the path"
        ) from None
    return content, hashlib.sha256(content).hexdigest()


def decode_suite(document: Any, called: str) -> Suite:
    """The suite that a document is; raises INVALID_SETTING naming the place, the value and the known settings."""
    try:
        suite = msgspec.convert(document, Suite)
    except msgspec.ValidationError as error:
        raise _wrong(called, str(error)) from None
    for problem in _problems(suite):
        raise SalverError("INVALID_SETTING", f"suite {called!r}: {problem}", _SEE)
    return suite


def _wrong(called: str, message: str) -> SalverError:
    unknown = _UNKNOWN.match(message)
    if unknown is None:
        return SalverError("INVALID_SETTING", f"suite {called!r}: {message.replace('$.', '')}", _SEE)
    name, place = unknown[1], unknown[2] or ""
    known = _fields_at(place)
    remedy = did_you_mean(name, known) or f"there are {', '.join(known)}"
    return SalverError("INVALID_SETTING", f"suite {called!r}: {place or 'the file'} has no setting {name!r}", remedy)


_SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "": Suite,
    "suite": About,
    "outputs": Outputs,
    "split": SplitSettings,
    "metric": MetricSettings,
    "satisficing": SatisficingSettings,
    "slices": SliceSettings,
    "slices.where": WhereSettings,
    "calibration": CalibrationSettings,
    "behaviour": BehaviourSettings,
    "behaviour.cases": CaseSettings,
    "robustness": RobustnessSettings,
    "fairness": FairnessSettings,
    "leakage": LeakageSettings,
    "fit": FitSettings,
    "cases": CasesSettings,
    "contract": ContractSettings,
    "skew": SkewSettings,
    "data": DataSettings,
    "infrastructure": InfrastructureSettings,
}


def _fields_at(place: str) -> list[str]:
    section = _SECTIONS.get(re.sub(r"\[[^]]*\]", "", place), Suite)
    return [field.encode_name for field in msgspec.structs.fields(section)]


def _problems(suite: Suite) -> Iterable[str]:
    about, split = suite.suite, suite.split
    yield from bounds("suite.confidence", about.confidence, 0.5, 0.9999)
    yield from bounds("suite.resamples", about.resamples, 100, 100_000)
    yield from bounds("suite.batch_rows", about.batch_rows, 1, 65_536)
    yield from bounds("split.test_ratio", split.test_ratio, 0.001, 0.999)
    if split.kind in ("temporal", "grouped") and not split.column:
        yield f"split.kind is {split.kind!r} and names no column"
    if len(suite.rivals) > 1:
        yield f"metrics are compared with different versions: {', '.join(suite.rivals)}"
    names = [each.name for each in suite.metric] + [each.name for each in suite.satisficing]
    names += [each.name for each in suite.behaviour] + [each.name for each in suite.contract]
    yield from (f"{name!r} stands twice" for name in dict.fromkeys(names) if names.count(name) > 1)
    for metric in suite.metric:
        yield from bounds(f"metric {metric.name}: margin", metric.margin, 0.0, float("inf"))
        if metric.at_least is not None and metric.at_most is not None:
            yield f"metric {metric.name!r} has both at_least and at_most"
        bounded = metric.at_least is not None or metric.at_most is not None or metric.not_worse_than
        if metric.role is not Role.OPTIMISING and not bounded:
            yield f"metric {metric.name!r} is {metric.role} and has no bound"
    for cost in suite.satisficing:
        yield from bounds(f"{cost.name}: requests", cost.requests, 10, 1_000_000)
        yield from bounds(f"{cost.name}: budget_s", cost.budget_s, 0.1, 3600)
    yield from _slice_problems(suite.slices)
    if suite.calibration is not None:
        yield from bounds("calibration.bins", suite.calibration.bins, 2, 1000)
    yield from behaviour_problems(suite)
    yield from service_problems(suite)


def _slice_problems(slices: SliceSettings | None) -> Iterable[str]:
    if slices is None:
        return
    yield from bounds("slices.bins", slices.bins, 2, 100)
    yield from bounds("slices.min_support", slices.min_support, 2, 10**9)
    yield from bounds("slices.max_gap", slices.max_gap, 0.0, float("inf"))
    yield from bounds("slices.level", slices.level, 1e-6, 0.5)
    for where in slices.where:
        ranged = where.at_least is not None or where.below is not None
        if ranged == (where.equals is not None):
            yield f"slice {where.name!r} needs either equals, or at_least and below"
