"""What a check looks at: a version, the rows held out, what is true of them and what it says."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from salver.clock import Clock
from salver.evaluation.subject.given import Given
from salver.evaluation.subject.inputs import InputMapping
from salver.evaluation.subject.predictions import Predictions, Reader, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.serving import ServedVersion
from salver.protocol.tables import VersionManifest

__all__ = ["Asked", "Subject", "Training"]


@dataclass(frozen=True)
class Asked:
    """A served version with what the suite knows of its inputs and outputs."""

    served: ServedVersion
    mapping: InputMapping
    reader: Reader

    @property
    def manifest(self) -> VersionManifest:
        """Of the version."""
        return self.served.manifest

    def predict(self, rows: Rows) -> Predictions:
        """What the version says of these rows, through the service that serves it in production."""
        return self.reader.read(self.served.ask(self.mapping.arrays(rows)))

    def latencies_s(self, rows: Rows, requests: int, budget_s: float) -> list[float]:
        """See `ServedVersion.latencies_s`."""
        return self.served.latencies_s(self.mapping.arrays(rows), requests, budget_s)


@dataclass(frozen=True)
class Training:
    """What is said of the rows a version was trained on; empty for what is not."""

    data_digest: str = ""
    split: str = ""
    """The digest of the split on whose other side they are."""


@dataclass(frozen=True)
class Subject:
    """One version under evaluation. Checks read it and change nothing."""

    asked: Asked
    rows: Rows
    """Those that are evaluated."""
    others: Rows
    """Those on the other side of the split; none where all are evaluated."""
    truth: Truth
    predictions: Predictions
    clock: Clock
    target: str
    """The column of what is true."""
    training: Training = Training()
    confidence: float = 0.95
    """With which each one-sided bound holds."""
    resamples: int = 1000
    seed: int = 0
    groups: Array | None = None
    """Of a grouped split the group of each row: rows of one are no independent evidence."""
    given: Given = field(default_factory=Given)
    """What checks of service work with."""
    rival: Asked | None = None
    """The version to compare with, if any."""
    rival_predictions: Predictions | None = None
    """What that one says of the same rows."""

    @property
    def manifest(self) -> VersionManifest:
        """Of the version."""
        return self.asked.manifest

    @property
    def data_digest(self) -> str:
        """SHA-256 of the file the rows come from."""
        return self.rows.digest

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that the version sees."""
        return self.asked.mapping.features

    def predict(self, rows: Rows) -> Predictions:
        """What the version says of other rows, perturbed ones for instance."""
        return self.asked.predict(rows)

    def rng(self, purpose: str) -> np.random.Generator:
        """A stream of random numbers of its own for each purpose, the same in each evaluation with one seed."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])

    def losses(self) -> Array:
        """What each row costs: 1 for a wrong label, else 0; of a regression its absolute error by the mean one."""
        predicted = self.predictions
        if self.truth.task.is_classification:
            assert predicted.labels is not None
            wrong: Array = np.not_equal(predicted.labels, self.truth.target).astype(np.float64)
            return wrong
        assert predicted.values is not None
        errors: Array = np.abs(predicted.values - self.truth.target)
        mean = float(errors.mean())
        return errors / mean if mean > 0 else errors
