"""Requests as clients sent them, answered as the data listener would: read, checked, asked and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.subject.rows import Array
from salver.protocol.codecs.oip_request import InferBody, decode_json
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.protocol.tables import Nonfinite, VersionManifest

__all__ = ["Exchanges", "is_label", "rows_of", "text_of"]

_MOST_ELEMENTS: Final = 2**24


@dataclass(frozen=True)
class Exchanges:
    """Reads requests and writes answers of one version."""

    check: SignatureCheck
    encoder: ResponseEncoder

    @classmethod
    def of(cls, manifest: VersionManifest, endpoint: str) -> Exchanges:
        """Those of a version behind an endpoint."""
        check = SignatureCheck(manifest.signature)
        return cls(check, ResponseEncoder(endpoint, manifest.model, manifest.version, check.outputs, Nonfinite.ERROR))

    def read(self, body: bytes) -> tuple[InferBody, int]:
        """What a JSON request says, and how many rows; raises what the listener would refuse it with."""
        infer = decode_json(body, _MOST_ELEMENTS)
        rows = self.check.rows(infer.inputs)
        if infer.outputs is not None:
            self.check.require_outputs(infer.outputs)
        return infer, rows

    def written(self, request: Request, response: Response) -> dict[str, Array]:
        """The outputs that were asked for; raises what an answer is refused with, such as NONFINITE_OUTPUT."""
        self.encoder.encode(request, response)
        names = [each.name for each in request.outputs] if request.outputs else list(self.check.outputs)
        return {name: response.array(name) for name in names}


def is_label(array: Array) -> bool:
    """Whether an output is one of names or whole numbers, which agree or do not."""
    return array.dtype.kind in "OSUbiu"


def text_of(values: Array) -> Array:
    """Labels as text, whatever they came as: 1, b"1" and "1" are one label."""
    found = [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.reshape(-1)
    ]
    return np.array(found, dtype=str).reshape(values.shape)


def rows_of(outputs: Mapping[str, Array]) -> int:
    """How many rows an answer has."""
    return max((len(array) for array in outputs.values() if array.ndim), default=0)
