"""The first runs of a freshly loaded version: they pay what first runs cost, and measure."""

from __future__ import annotations

import numpy as np

from salver.clock import Clock
from salver.protocol.datatypes import DATATYPES
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature
from salver.runtime.batch import check_outputs
from salver.runtime.curve import ServiceCurve
from salver.runtime.formats import Loaded
from salver.runtime.model import Arrays
from salver.telemetry.logs import log_event

__all__ = ["example_inputs", "warm_up"]

_BUDGET_S = 0.25
_RUNS = 5


def example_inputs(signature: Signature, profile: Profile | None, rows: int) -> Arrays:
    """A batch of `rows` ordinary rows: the training means where there is a profile, else zeros.

    Free dimensions behind the batch are 1.
    """
    means = {p.input: [feature.mean for feature in p.features] for p in profile.inputs} if profile else {}
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
            if spec.name in means:
                array.reshape(rows, -1)[:] = means[spec.name]
        arrays[spec.name] = array
    return arrays


def warm_up(
    loaded: Loaded, signature: Signature, profile: Profile | None, max_batch: int, clock: Clock
) -> ServiceCurve:
    """Run growing batches until their time exceeds a quarter second; blocks.

    Raises BAD_MODEL_OUTPUT when the answers contradict the signature: that does not depend on
    the values sent. A model that raises on such invented rows is not judged by it.
    """
    curve = ServiceCurve()
    spent_s, rows = 0.0, 1
    while spent_s < _BUDGET_S and rows <= max_batch:
        inputs = example_inputs(signature, profile, rows)
        fastest_s = float("inf")
        for attempt in range(_RUNS):
            began_s = clock.monotonic_s()
            try:
                outputs = loaded.run(inputs)
            except Exception as error:  # noqa: BLE001 - a model may refuse invented rows
                log_event("warm_up_ended", rows=rows, problem=f"{type(error).__name__}: {error}")
                return curve
            seconds = clock.monotonic_s() - began_s
            check_outputs(outputs, signature, rows)
            spent_s += seconds
            if attempt:
                # The fastest of several: one that lost its processor must not look like a slow model.
                fastest_s = min(fastest_s, seconds)
            if attempt and spent_s >= _BUDGET_S:
                break
        curve.observe(rows, fastest_s)
        if not signature.batched:
            break
        rows *= 2
    return curve
