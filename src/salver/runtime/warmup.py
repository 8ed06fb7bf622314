"""The first runs of a freshly loaded version: they pay what first runs cost, and measure.

They run in the process that will serve: in the server process for data formats, else in the
worker, each time one is started. The rows are invented, so whether users' code is given them is
its owner's word: see `wants_warm_up`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from salver.clock import Clock
from salver.protocol.datatypes import DATATYPES
from salver.protocol.formats import is_always_code
from salver.protocol.profile import InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import VersionManifest
from salver.runtime.batch import check_outputs, problem_of
from salver.runtime.curve import Measured, ServiceCurve
from salver.runtime.formats import Loaded
from salver.runtime.model import Arrays

__all__ = ["example_inputs", "wants_warm_up", "warm_up"]

_BUDGET_S = 0.25
_RUNS = 5
_LARGEST_BYTES = 32 * 2**20
"""Inputs of an invented batch at most, beyond its first row: nobody asked for that memory."""


def wants_warm_up(manifest: VersionManifest) -> bool:
    """Whether invented rows may be run through a version before it serves.

    Estimators and graphs only compute. A function that somebody wrote may count, store or charge for
    what it is asked, and an array of zeros may be nothing it was written for; it gets invented rows
    when its declaration says so, or when a profile makes them ordinary ones.
    """
    if manifest.warm_up is not None:
        return manifest.warm_up
    calls_users = is_always_code(manifest.format) or bool(manifest.preprocess or manifest.postprocess)
    return not calls_users or manifest.profile is not None


def example_inputs(signature: Signature, profile: Profile | None, rows: int) -> Arrays:
    """A read-only batch of `rows` ordinary rows: the training means where there is a profile, else zeros.

    Means of whole numbers are rounded, and none leaves the range of the training values. Free
    dimensions behind the batch are 1.
    """
    known = {found.input: found for found in profile.inputs} if profile else {}
    arrays: Arrays = {}
    for spec in signature.inputs:
        if spec.optional:
            continue
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        shape = (rows, *shape[1:]) if signature.batched else shape
        if spec.datatype == "BYTES":
            array = np.full(shape, b"", dtype=object)
        else:
            array = np.zeros(shape, dtype=DATATYPES[spec.datatype].dtype)
            if spec.name in known:
                array.reshape(len(array), -1)[:] = _ordinary(known[spec.name], spec)
        array.flags.writeable = False
        arrays[spec.name] = array
    return arrays


def _ordinary(profile: InputProfile, spec: TensorSpec) -> Any:
    means = np.array([feature.mean for feature in profile.features])
    if DATATYPES[spec.datatype].dtype.kind != "f":
        means = np.rint(means)
    low = [feature.low for feature in profile.features]
    return np.clip(means, low, [feature.high for feature in profile.features])


def warm_up(loaded: Loaded, manifest: VersionManifest, max_batch: int, clock: Clock) -> Measured:
    """Run growing batches until their time exceeds a quarter second; blocks, for ever if a run does.

    Nothing is run, or measured, where `wants_warm_up` says no. Raises BAD_MODEL_OUTPUT when the
    answers contradict the signature: that does not depend on the values sent. A model that raises on
    such invented rows is not judged by it; what it raised is in `Measured.problem`.
    """
    if not wants_warm_up(manifest):
        return Measured()
    signature = manifest.signature
    curve = ServiceCurve()
    spent_s, longest_s, rows = 0.0, 0.0, 1
    while spent_s < _BUDGET_S and rows <= max_batch:
        inputs = example_inputs(signature, manifest.profile, rows)
        if rows > 1 and sum(array.nbytes for array in inputs.values()) > _LARGEST_BYTES:
            break
        fastest_s = float("inf")
        for attempt in range(_RUNS):
            began_s = clock.monotonic_s()
            try:
                outputs = loaded.run(inputs)
            except Exception as error:  # noqa: BLE001 - a model may refuse invented rows
                return _frozen(curve, longest_s, signature, f"on {rows} invented rows: {problem_of(error)}")
            seconds = clock.monotonic_s() - began_s
            check_outputs(outputs, signature, rows)
            spent_s += seconds
            longest_s = max(longest_s, seconds)
            if attempt:
                # The fastest of several: one that lost its processor must not look like a slow model.
                fastest_s = min(fastest_s, seconds)
            if attempt and spent_s >= _BUDGET_S:
                break
        curve.observe(rows, fastest_s)
        if not signature.batched:
            break
        rows *= 2
    return _frozen(curve, longest_s, signature)


def _frozen(curve: ServiceCurve, longest_s: float, signature: Signature, problem: str = "") -> Measured:
    # Where rows may be longer than the invented ones, as texts are, theirs say nothing about what a hang is.
    alike = all(
        -1 not in spec.shape[1:] and not spec.optional and spec.datatype != "BYTES" for spec in signature.inputs
    )
    return Measured(curve.points(), longest_s if alike else 0.0, problem)
