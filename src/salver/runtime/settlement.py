"""Answering the requests of a version, each exactly once, and counting what became of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.tables import Validate, VersionManifest
from salver.runtime.batch import Batch, Entry
from salver.runtime.model import Arrays
from salver.runtime.screen import ProfileScreen
from salver.telemetry.logs import log_event
from salver.telemetry.metrics import VersionMetrics

__all__ = ["Settlement", "model_error", "too_late"]


def model_error(reference: str, request: Request, problem: str, refusal: str) -> SalverError:
    """What the caller of `request` is told when the model raised on it; the log has the `problem`.

    The `refusal` is what the model says to them, if it says anything: then the input is at fault, not the model.
    """
    trace = request.trace.decode()
    if refusal:
        log_event("input_refused", version=reference, request=trace, problem=problem)
        return SalverError("BAD_INPUT", refusal)
    log_event("model_error", level=logging.WARNING, version=reference, request=trace, problem=problem)
    return SalverError("MODEL_ERROR", f"{reference} raised an exception on this request")


def too_late(received_s: float, now_s: float, spent: str) -> SalverError:
    """What the caller of a request is told whose deadline has passed; `spent` says with what."""
    return SalverError("DEADLINE_EXCEEDED", f"no answer after {now_s - received_s:.3f} s: {spent}")


class Settlement:
    """How the requests of one version end: with an answer or an error, never both, never twice."""

    __slots__ = ("_batched", "_clock", "_manifest", "_metrics", "_screen", "_validate")

    def __init__(self, manifest: VersionManifest, validate: Validate, metrics: VersionMetrics, clock: Clock) -> None:
        self._manifest = manifest
        self._batched = manifest.signature.batched
        self._validate = validate
        self._screen = ProfileScreen(manifest)
        self._metrics = metrics
        self._clock = clock

    def count_in(self, metrics: VersionMetrics) -> None:
        """Count there from now on."""
        self._metrics = metrics

    def fail(self, entry: Entry, error: SalverError) -> None:
        """Answer one request with an error, unless it has an answer or its caller has gone."""
        if entry.fail(error):
            self._metrics.failed(error.code, self._clock.monotonic_s() - entry.request.received_s)

    def expire(self, entry: Entry, batch: Batch | None, now_s: float) -> None:
        """Answer one whose deadline has passed, while it waited or while its `batch` ran."""
        spent = f"its batch has computed for {now_s - batch.started_s:.3f} s" if batch else "it was still queued"
        self.fail(entry, too_late(entry.request.received_s, now_s, spent))

    def fail_all(self, entries: Iterable[Entry], error: SalverError) -> None:
        """Answer all of them with an error."""
        for entry in entries:
            self.fail(entry, error)

    def reject(self, batch: Batch, error: SalverError) -> None:
        """What the model answered is none: all of the batch fail."""
        log_event("bad_model_output", level=logging.WARNING, version=self._manifest.reference, problem=error.message)
        self.fail_all(batch.entries, error)

    @property
    def screens(self) -> bool:
        """Whether inputs are held against the profile."""
        return bool(self._screen) and self._validate is not Validate.OFF

    def screened(self, entries: list[Entry], inputs: Arrays) -> list[Entry]:
        """Warn about values outside the profile or, if the deployment is strict, refuse them; those left to run."""
        for entry, message in self._screen.outside(entries, inputs):
            self._metrics.outside_profile += 1
            if self._validate is Validate.STRICT:
                self.fail(entry, SalverError("OUTSIDE_PROFILE", message, "check the units and the preprocessing"))
            else:
                entry.warnings = (*entry.warnings, message)
        return [entry for entry in entries if not entry.answer.done()]

    def answer(self, batch: Batch, outputs: BatchOutputs, returned_s: float) -> float:
        """Give each request its rows of the outputs, which came at `returned_s`; seconds that the slowest took."""
        model, version = self._manifest.model, self._manifest.version
        cut_s, batched = batch.cut_s, self._batched
        free_for_s = cut_s - batch.free_s
        answered: list[Entry] = []
        start = 0
        for entry in batch.entries:
            stop = start + entry.request.rows
            if not entry.answer.done():
                answered.append(entry)
                waited_s = cut_s - entry.enqueued_s
                # While a replica was free it was held for a fuller batch.
                hold_s = min(waited_s, free_for_s) if free_for_s > 0 else 0.0
                entry.answer.set_result(
                    Response(
                        model,
                        version,
                        outputs,
                        start,
                        stop if batched else None,
                        entry.warnings,
                        waited_s - hold_s,
                        hold_s,
                    )
                )
            start = stop
        self._metrics.busy_s += returned_s - cut_s
        now_s = self._clock.monotonic_s()
        latencies_s = [now_s - entry.request.received_s for entry in answered]
        self._metrics.batch_done(
            batch.rows,
            batch.started_s - cut_s,
            outputs.compute_s,
            now_s - returned_s,
            [cut_s - entry.enqueued_s for entry in answered],
            latencies_s,
            self._clock.wall_s(),
        )
        return max(latencies_s, default=0.0)
