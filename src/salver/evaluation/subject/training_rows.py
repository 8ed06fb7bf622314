"""The rows a version was trained on, as far as they are known: a file that the suite names, or the split's rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from salver.evaluation.subject.rows import Array, Rows, read_rows
from salver.evaluation.subject.subject import Subject

__all__ = ["known_rows", "training_rows", "with_training"]


def training_rows(subject: Subject, named: str) -> Rows:
    """The training rows; of no length where none are known. Raises as `read_rows` for a file that cannot be read."""
    return read_rows(Path(named)) if named else subject.others


def known_rows(subject: Subject, training: Rows) -> str:
    """How sure it is that those are the rows it was trained on, for reasons."""
    digest = subject.training.data_digest
    if not digest:
        return "if those are its training rows: it does not say"
    if training.digest == digest:
        return ""
    return "though it says that it was trained on another file"


def with_training(subject: Subject, training: Rows, features: tuple[str, ...]) -> tuple[Rows, Array]:
    """The evaluated rows with the training rows below, of these columns, and what is true of them."""
    truth = subject.truth.target
    if not len(training):
        return Rows({name: subject.rows.column(name) for name in features}), truth
    columns = {name: _below(subject.rows.column(name), training.column(name)) for name in features}
    return Rows(columns), np.concatenate([truth, subject.asked.reader.truth(training).target])


def _below(one: Array, other: Array) -> Array:
    if (one.dtype.kind == "O") != (other.dtype.kind == "O"):
        return np.concatenate([one.astype(object), other.astype(object)])
    return np.concatenate([one, other])
