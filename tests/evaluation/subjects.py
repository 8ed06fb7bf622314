"""Subjects made of arrays, for checks alone: nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from salver.evaluation.subject.predictions import Predictions, Task, Truth
from salver.evaluation.subject.rows import Rows
from salver.evaluation.subject.subject import Subject
from salver.testing import ManualClock, make_manifest


def make_subject(
    *,
    target,
    labels=None,
    probabilities=None,
    values=None,
    rival: Predictions | None = None,
    columns: dict | None = None,
    classes: tuple[str, ...] = ("0", "1"),
    **more,
) -> Subject:
    """A subject of arrays; nothing is loaded."""
    target = np.asarray(target)
    if probabilities is not None:
        probabilities = np.asarray(probabilities, dtype=float)
        if probabilities.ndim == 1:
            probabilities = np.column_stack([1 - probabilities, probabilities])
        labels = probabilities.argmax(axis=1) if labels is None else labels
    task = Task.REGRESSION if values is not None else Task.BINARY if len(classes) == 2 else Task.MULTICLASS
    predicted = Predictions(
        None if labels is None else np.asarray(labels), probabilities, None if values is None else np.asarray(values)
    )
    rows = Rows({"target": target, **(columns or {})}, "d1")
    asked = SimpleNamespace(manifest=make_manifest(), mapping=SimpleNamespace(features=()), **more.pop("asked", {}))
    if rival is not None:
        more |= {"rival": SimpleNamespace(manifest=make_manifest(version="0.9.0")), "rival_predictions": rival}
    truth = Truth(task, target, () if values is not None else classes)
    others = more.pop("others", rows.take(np.arange(0)))
    return Subject(
        asked=asked,
        rows=rows,
        others=others,
        truth=truth,
        predictions=predicted,
        clock=ManualClock(),
        target="target",
        **({"resamples": 150} | more),
    )


def run_salver(home: Path, *arguments: object) -> int:
    from salver.cli import main

    return main(["--json", "--home", str(home), *map(str, arguments)])
