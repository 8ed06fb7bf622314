"""The models and clients that the tests of the protocols for scoring share."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.gateway.computing import Act, Computed, publish
from tests.gateway.servers import Served
from tests.gateway.wire import RawClient, Reply

from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.signature import Signature, TensorSpec

SUM = Signature((TensorSpec("X", "FP64", (-1, 3)),), (TensorSpec("sum", "FP64", (-1,)),))
BOTH = Signature(SUM.inputs, (TensorSpec("sum", "FP64", (-1,)), TensorSpec("twice", "FP64", (-1, 3))))


class AnyShapeClient(RawClient):
    """Errors have a code of the catalogue, whatever their shape."""

    def check(self, reply: Reply) -> None:
        assert reply.code is not None
        assert CATALOGUE[reply.code].http == reply.status


def add(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"sum": inputs["X"].sum(axis=1)}


def add_and_double(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return add(inputs) | {"twice": inputs["X"] * 2}


def broken(_: object) -> dict[str, np.ndarray]:
    raise SalverError("MODEL_ERROR", "the model raised an exception")


def publish_sums(
    served: Served,
    warnings: tuple[str, ...] = ("value 9 lies outside",),
    **more: tuple[Signature, Act] | tuple[Signature, Act, dict[str, Any]],
) -> dict[str, Computed]:
    """Serve `sum`, `both` of one more output and with warnings, `broken`, and more."""
    return publish(
        served, sum=(SUM, add), both=(BOTH, add_and_double, {"warnings": warnings}), broken=(SUM, broken), **more
    )
