"""Whether what is recorded of a version comes out again: the data, the environment, and metric by metric.

A number that was recorded on other rows proves nothing either way. So where the rows are not those that were recorded,
or nobody recorded which they were, equal numbers are *inconclusive*, and so are different ones.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.registry.evidence import Evaluation
from salver.stats.metrics import metric

__all__ = [
    "SUITE",
    "Compared",
    "Difference",
    "Remade",
    "Reproduction",
    "compare_metrics",
    "environment_differences",
    "judge",
    "recorded_data",
    "recorded_metrics",
    "standard_suite",
]

SUITE: Final = "reproduction"
"""Under which a reproduction is recorded as evidence."""
_ALSO_CALLED: Final = {"auc": "roc_auc", "auroc": "roc_auc", "average_precision": "pr_auc", "logloss": "log_loss"}
"""Names that people give to metrics, and the ones here."""
_PINNED: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\,]+)", re.MULTILINE)
_MOST_PACKAGES: Final = 2000


class Compared(msgspec.Struct, frozen=True):
    """One metric as it was recorded and as it is now; `found` is None where it was not measured."""

    name: str
    recorded: float
    found: float | None
    source: str
    """Who recorded it: `description`, or evaluation ID."""
    agrees: bool | None
    """Within the tolerance; None where it was not measured."""


class Difference(msgspec.Struct, frozen=True):
    """A package whose version here is another than the recorded one; empty where it is not installed."""

    package: str
    recorded: str
    here: str


class Remade(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the training command made again."""

    outcome: str
    """`same bytes`, `same metrics`, `different`, or `unknown` where only metrics could tell and none were compared."""
    digest: str
    metrics: tuple[Compared, ...] = ()
    """Its metrics beside those of the registered version on the same rows."""


class Reproduction(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole answer. As JSON it is evidence for a gate."""

    suite: str
    model: str
    version: str
    digest: str
    """Of the bytes that were judged, each verified when it was loaded."""
    verdict: Verdict
    reasons: tuple[str, ...]
    data_digest: str
    data_rows: int
    data: str
    """`same`, `other` or `unknown` against what is recorded."""
    data_recorded: tuple[str, ...] = ()
    metrics: tuple[Compared, ...] = ()
    environment: tuple[Difference, ...] = ()
    environment_digest: str = ""
    """SHA-256 of the recorded lock file; empty where none is."""
    remade: Remade | None = None
    tolerance: float = 0.0
    numbers: dict[str, float] = {}

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


def standard_suite(target: str, names: Iterable[str]) -> str:
    """A suite in TOML that measures the recorded metrics it knows; raises INVALID_PARAMETER where there are none."""
    known = dict.fromkeys(each for name in names if (each := _known(name)))
    if not known:
        raise SalverError(
            "INVALID_PARAMETER", "no metric is recorded that can be measured again", "give --suite FILE, or record some"
        )
    # The strings of JSON are strings of TOML.
    lines = [f"[suite]\nname = {json.dumps(SUITE)}\ntarget = {json.dumps(target)}\nresamples = 100"]
    return "\n".join([*lines, *(f"[[metric]]\nname = {json.dumps(each)}" for each in known)]) + "\n"


def _known(name: str) -> str:
    called = _ALSO_CALLED.get(name.lower(), name)
    try:
        return metric(called).name
    except SalverError:
        return ""


def recorded_data(description: Description, evaluations: Iterable[Evaluation]) -> tuple[str, ...]:
    """The digests of the data that recorded numbers are of, each once; none where nobody said."""
    data = description.evaluation_data
    said = [data.digest.removeprefix("sha256:").lower()] if data and data.digest else []
    return tuple(dict.fromkeys([*said, *(each.data_digest for each in evaluations if each.data_digest)]))


def recorded_metrics(
    description: Description, evaluations: Iterable[Evaluation], version_digest: str, data_digest: str, rows: int
) -> dict[str, tuple[float, str]]:
    """Each recorded metric with who recorded it: the newest evaluation on these very rows, else the description.

    An evaluation that looked at another number of rows than `rows` has split these data otherwise.
    """
    found = {name: (value, "description") for name, value in description.metrics.items()}
    done: set[str] = set()
    for each in evaluations:
        if each.suite == SUITE or each.digest != version_digest or each.data_digest != data_digest:
            continue
        if each.evaluated_rows not in (0, rows):
            continue
        for name, value in each.numbers.items():
            if "." not in name and _known(name) and name not in done:
                done.add(name)
                found[name] = (value, f"evaluation {each.id}")
    return found


def compare_metrics(
    recorded: Mapping[str, tuple[float, str]], found: Mapping[str, float], tolerance: float
) -> tuple[Compared, ...]:
    """Metric by metric, a recorded one by what it is called here. Pure."""
    compared = []
    for name, (value, source) in sorted(recorded.items()):
        now = found.get(name, found.get(_known(name)))
        agrees = None if now is None else math.isclose(value, now, rel_tol=0.0, abs_tol=tolerance)
        compared.append(Compared(name, value, now, source, agrees))
    return tuple(compared)


def environment_differences(lock: str) -> tuple[Difference, ...]:
    """The packages that a lock file pins to other versions than are installed here."""
    found = []
    for name, version in _PINNED.findall(lock)[:_MOST_PACKAGES]:
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = ""
        if here != version:
            found.append(Difference(name, version, here))
    return tuple(found)


def judge(
    metrics: Iterable[Compared], data: str, environment: Iterable[Difference], remade: Remade | None
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict of all that was compared, and why. Pure."""
    reasons: list[str] = []
    verdicts: list[Verdict] = []
    compared = [each for each in metrics if each.agrees is not None]
    differing = [each for each in compared if not each.agrees]
    reasons += [
        f"{each.name} is {each.found:.6g}; recorded is {each.recorded:.6g} ({each.source})" for each in differing
    ]
    if compared and not differing:
        reasons.append(f"{len(compared)} metrics came out as recorded")
    if not compared:
        reasons.append("no metric that is recorded of these rows was measured again; --suite has them split as it did")
    if data == "other":
        reasons.append("the data are others than those that were recorded")
    if data == "unknown":
        reasons.append("which data the recorded metrics are of is not recorded")
    if data == "same" and compared:
        verdicts.append(Verdict.FAILED if differing else Verdict.SUCCESSFUL)
    else:
        verdicts.append(Verdict.INCONCLUSIVE)
    others = [f"{each.package} {each.here or 'none'} for {each.recorded}" for each in environment]
    if others:
        rest = f" and {len(others) - 5} more" if len(others) > 5 else ""
        reasons.append(f"the environment differs: {', '.join(others[:5])}{rest}")
    if remade is not None:
        verdict, told = _REMADE[remade.outcome]
        verdicts.append(verdict)
        reasons.append(f"made again, the artifact has {told}")
    return Verdict.worst(verdicts), tuple(reasons)


_REMADE: Final = {
    "same bytes": (Verdict.SUCCESSFUL, "the same bytes"),
    "same metrics": (Verdict.SUCCESSFUL, "other bytes and the same metrics"),
    "different": (Verdict.FAILED, "other bytes and other metrics"),
    "unknown": (Verdict.INCONCLUSIVE, "other bytes, and no metric says whether that matters"),
}
