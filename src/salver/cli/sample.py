"""A request to copy: what an endpoint would take, short enough for a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from salver.protocol.datatypes import DATATYPES
from salver.protocol.signature import TensorSpec

__all__ = ["sample_request"]

_LONGEST = 1000
_BY_TYPE = {str: "text", bool: False, int: 0, float: 0.0}


def sample_request(inputs: Sequence[TensorSpec], *, in_session: bool = False) -> str:
    """One row of every required input as JSON, zeros and short texts; empty if that is long or no JSON.

    It begins a session where requests are steps of one.

    >>> sample_request([TensorSpec("t", "BYTES", (-1,))])
    '{"inputs":[{"name":"t","datatype":"BYTES","shape":[1],"data":["text"]}]}'
    """
    tensors = []
    for spec in inputs:
        json_type = DATATYPES[spec.datatype].json_type
        shape = [max(size, 1) for size in spec.shape]
        if json_type is None or math.prod(shape) > _LONGEST:
            return ""
        if not spec.optional:
            data = [_BY_TYPE[json_type]] * math.prod(shape)
            tensors.append({"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data})
    step = {"parameters": {"sequence_id": "a", "sequence_start": True}} if in_session else {}
    written = msgspec.json.encode({"inputs": tensors, **step}).decode()
    return written if len(written) <= _LONGEST else ""
