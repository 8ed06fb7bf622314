"""Which registered versions suit a set of data, a task or the clients of another version, and why.

A recommendation is a pure function of what is asked for and what is registered. It says what fits and does not judge
how well a model answers: for that there are evaluations on the very data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from salver.protocol.datatypes import DATATYPES
from salver.protocol.description import Description
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.compatibility import Level, changes, level_of, signature_changes
from salver.registry.failures import told
from salver.registry.terms import words_of
from salver.stats.metrics import METRICS

__all__ = ["Column", "DataShape", "Offer", "Recommendation", "recommend"]

MOST_COLUMNS: Final = 10_000
MOST_VALUES: Final = 1000
_CLASSES_AT_MOST: Final = 50
"""Different whole numbers in a target that are classes and no quantity."""
_STAGES: Final = {
    Stage.PRODUCTION.value: 1.0,
    Stage.SHADOW.value: 0.8,
    Stage.STAGING.value: 0.7,
    Stage.VALIDATION.value: 0.5,
    Stage.DEVELOPMENT.value: 0.3,
}
_ENOUGH: Final = 0.5
"""A version that fits less than this is not recommended."""


class Column(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A column of a data set; `kind` is number, text, truth or time."""

    name: str
    kind: str


class DataShape(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a data set looks like, without its rows."""

    columns: tuple[Column, ...]
    target: str = ""
    """The column of what is to be predicted; empty where none is named."""
    values: tuple[str, ...] = ()
    """The different values of the target, sorted; none where they are too many."""
    whole: bool = False
    """Whether a target of numbers holds only whole ones."""
    digest: str = ""
    """SHA-256 of the file."""

    @property
    def features(self) -> tuple[Column, ...]:
        """All columns but the target."""
        return tuple(column for column in self.columns if column.name != self.target)

    @property
    def is_classification(self) -> bool | None:
        """Whether the target is a class; None where there is no target."""
        kind = next((column.kind for column in self.columns if column.name == self.target), None)
        if kind is None:
            return None
        return kind != "number" or (self.whole and 0 < len(self.values) <= _CLASSES_AT_MOST)


class Offer(NamedTuple):
    """A version that could be recommended."""

    manifest: VersionManifest
    description: Description
    stage: str
    metrics: dict[str, float]
    failed: tuple[str, ...] = ()
    """Suites whose newest evaluation of it failed."""


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that suits, and why."""

    model: str
    version: str
    stage: str
    fit_ratio: float
    """1 where everything that is known fits."""
    reasons: tuple[str, ...]
    caveats: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    failed: tuple[str, ...] = ()
    """Suites whose newest evaluation of it failed."""


class _Said(NamedTuple):
    """What one look at a version found: from 0 for does not fit to 1, and in words."""

    fit: float
    reason: str
    caveat: str = ""


def recommend(
    offers: Iterable[Offer],
    *,
    task: str = "",
    data: DataShape | None = None,
    like: VersionManifest | Signature | None = None,
    most: int = 10,
) -> tuple[Recommendation, ...]:
    """The best version of each model that fits all that is asked for, the best first. Pure.

    Those that failed come last. Ranked by fit, then stage, then the metric that most of them have, then the number.
    Of no fitting model nothing.
    """
    found: list[tuple[Offer, Recommendation]] = []
    for offer in offers:
        if offer.stage not in _STAGES or (
            isinstance(like, VersionManifest) and offer.manifest.reference == like.reference
        ):
            continue
        said = [*_by_task(offer, task), *_by_data(offer, data), *_by_signature(offer, like)]
        if not said or min(each.fit for each in said) <= 0:
            continue
        fit = sum(each.fit for each in said) / len(said)
        if fit >= _ENOUGH:
            found.append((offer, _made(offer, fit, said)))
    measure = _common_metric([made for _, made in found])
    found.sort(key=lambda each: (*_rank(each[1], measure), each[0].manifest.model, -each[0].manifest.ordinal))
    best: dict[str, Recommendation] = {}
    for _, made in found:
        best.setdefault(made.model, made)
    return tuple(best.values())[:most]


def _rank(made: Recommendation, measure: str) -> tuple[float, ...]:
    """The smaller the better."""
    value = made.metrics.get(measure)
    worth = math.inf if value is None else -value if METRICS[measure].higher_is_better else value
    return bool(made.failed), -round(made.fit_ratio, 3), -_STAGES[made.stage], worth


def _common_metric(found: list[Recommendation]) -> str:
    """The metric that most have, of those of which it is known what is better; empty for none."""
    counts = Counter(name for made in found for name in made.metrics if name in METRICS)
    return min(counts, key=lambda name: (-counts[name], name), default="")


def _made(offer: Offer, fit: float, said: list[_Said]) -> Recommendation:
    reasons = [each.reason for each in said if each.reason]
    caveats = [each.caveat for each in said if each.caveat]
    reasons.append(f"in {offer.stage}")
    if offer.description.limitations:
        caveats.append(f"limitations: {offer.description.limitations[:200]}")
    if offer.failed:
        caveats.append(told(offer.failed))
    if not offer.metrics:
        caveats.append("its description names no metric")
    manifest = offer.manifest
    return Recommendation(
        manifest.model, manifest.version, offer.stage, fit, tuple(reasons), tuple(caveats), offer.metrics, offer.failed
    )


def _by_task(offer: Offer, task: str) -> Iterator[_Said]:
    if not task:
        return
    wanted, said = set(words_of(task)), offer.description
    if wanted == set(words_of(said.task)):
        yield _Said(1.0, f"its task is {said.task}")
    elif wanted <= set(words_of(f"{said.task} {said.description} {said.intended_use} {offer.manifest.model}")):
        yield _Said(0.7, f"its description speaks of {task}", "" if said.task else "it states no task")
    else:
        yield _Said(0.0, "")


def _by_signature(offer: Offer, like: VersionManifest | Signature | None) -> Iterator[_Said]:
    if like is None:
        return
    if isinstance(like, Signature):
        found, named = signature_changes(like, offer.manifest.signature), "that signature"
    else:
        found, named = changes(like, offer.manifest), like.reference
    if level_of(found) is Level.MAJOR:
        yield _Said(0.0, "")
    elif found:
        yield _Said(0.9, f"clients of {named} go on with it: {found[0].what}")
    else:
        yield _Said(1.0, f"it takes and gives what {named} does")


def _by_data(offer: Offer, data: DataShape | None) -> Iterator[_Said]:
    if data is None:
        return
    required = [spec for spec in offer.manifest.signature.inputs if not spec.optional]
    yield _by_inputs(required, data)
    yield from _by_target(offer.manifest, data)
    trained = offer.description.training_data
    if trained and data.digest and trained.digest.removeprefix("sha256:").lower() == data.digest:
        yield _Said(
            1.0, "it was trained on these very rows", "an evaluation on rows that it was trained on says little"
        )


def _by_inputs(required: list[TensorSpec], data: DataShape) -> _Said:
    """How the columns fill the inputs: by names, else by their number and kinds."""
    kinds = {column.name: column.kind for column in data.features}
    if len(required) == 1:
        (spec,) = required
        if spec.labels:
            return _by_labels(spec, kinds)
        if spec.name not in kinds or len(spec.shape) > 1:
            return _by_width(spec, data)
    missing = [spec.name for spec in required if spec.name not in kinds]
    unfit = [spec.name for spec in required if spec.name in kinds and not _takes(spec, kinds[spec.name])]
    if missing or unfit or not required:
        return _Said(0.0, "")
    spare = len(kinds) - len(required)
    return _Said(1.0, f"columns are called as its {len(required)} inputs", f"{spare} columns unused" if spare else "")


def _by_labels(spec: TensorSpec, kinds: dict[str, str]) -> _Said:
    """An input that names its columns."""
    there = [name for name in spec.labels if name in kinds]
    if len(there) < len(spec.labels) or not all(_takes(spec, kinds[name]) for name in there):
        return _Said(0.0, "")
    spare = len(kinds) - len(there)
    return _Said(
        1.0, f"has all {len(there)} columns of its input {spec.name}", f"{spare} columns unused" if spare else ""
    )


def _by_width(spec: TensorSpec, data: DataShape) -> _Said:
    """An input of rows that names no columns."""
    width = spec.shape[-1] if len(spec.shape) == 2 else 1 if len(spec.shape) == 1 else 0
    fitting = [column.name for column in data.features if _takes(spec, column.kind)]
    if not fitting or width == 0:
        return _Said(0.0, "")
    guess = "whether they mean the same is not known: its input names no columns"
    if width == len(fitting):
        return _Said(0.8, f"its input {spec.name} takes {width} columns, and so many fit", guess)
    if width == -1:
        return _Said(0.6, f"its input {spec.name} takes rows of any width", guess)
    return _Said(0.0, "")


def _takes(spec: TensorSpec, kind: str) -> bool:
    wanted = DATATYPES[spec.datatype].json_type
    if kind == "number":
        return wanted in (int, float)
    if kind == "truth":
        return wanted in (bool, int, float)
    return spec.datatype == "BYTES"


def _by_target(manifest: VersionManifest, data: DataShape) -> Iterator[_Said]:
    """Whether the outputs say what the target asks."""
    wanted = data.is_classification
    if wanted is None:
        return
    outputs = manifest.signature.outputs
    labels = next((spec.labels for spec in outputs if spec.labels), ())
    classes = len(labels) or next((s.shape[1] for s in outputs if len(s.shape) == 2 and s.shape[1] > 1), 0)
    if not wanted:
        values = [s for s in outputs if s.datatype.startswith(("FP", "BF")) and s.shape in ((-1,), (-1, 1))]
        yield (
            _Said(0.9, f"its output {values[0].name} is a number, as the target is")
            if values and not labels
            else _Said(0.0, "")
        )
    elif labels and data.values:
        same = set(labels) == set(data.values)
        covers = set(data.values) <= set(labels)
        reason = (
            f"its labels are the target's values: {', '.join(labels[:5])}" if same else "its labels hold the target's"
        )
        yield _Said(1.0 if same else 0.8 if covers else 0.0, reason)
    elif classes and data.values:
        fits = classes == len(data.values)
        yield _Said(0.7 if fits else 0.0, f"it tells {classes} classes apart, as many as the target has")
    else:
        integral = any(s.datatype.startswith(("INT", "UINT")) or s.datatype in ("BYTES", "BOOL") for s in outputs)
        yield _Said(0.5, "its output may be a class", "its outputs name no classes") if integral else _Said(0.0, "")
