"""One inference: what was asked and what was answered, free of any wire format.

Doors build a `Request`, services answer it with a `Response`, doors write that out. Both are
structs because one of each is made per request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from salver.protocol.tensor import Tensor

__all__ = ["BatchOutputs", "Request", "RequestedOutput", "Response", "Service"]


class RequestedOutput(NamedTuple):
    """One output a client named: in binary or not, or as its `classification` largest classes."""

    name: str
    binary: bool | None = None
    classification: int = 0


class Request(msgspec.Struct, eq=False):
    """One inference on its way to a model.

    `deadline_s` is monotonic and absolute: past it the caller has been answered and nothing
    may start on its behalf. `rows` is set by admission from the signature.
    """

    endpoint: str
    inputs: dict[str, Tensor]
    version: str | None = None
    id: str | None = None
    outputs: tuple[RequestedOutput, ...] | None = None
    parameters: Mapping[str, Any] | None = None
    received_s: float = 0.0
    deadline_s: float = float("inf")
    rows: int = 1
    trace: bytes = b""
    """What the request is called in logs: the id its answer carries."""

    def __repr__(self) -> str:
        return f"<Request {self.id or '-'} for {self.endpoint}, {self.rows} rows>"


class BatchOutputs:
    """The outputs of one batch, shared by the responses cut from it.

    `codec_cache` belongs to the doors: what they compute once per batch for all its requests.
    """

    __slots__ = ("arrays", "codec_cache")

    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        self.arrays = arrays
        self.codec_cache: dict[Any, Any] = {}


class Response(msgspec.Struct, eq=False):
    """The answer to one request: rows `start` to `stop` of a batch, and the version that gave it.

    For a signature without a batch dimension the request had the batch to itself and `stop`
    is None: the whole arrays are the answer.
    """

    model: str
    version: str
    batch: BatchOutputs
    start: int = 0
    stop: int | None = None
    warnings: tuple[str, ...] = ()
    queue_s: float = 0.0
    compute_s: float = 0.0

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """One output of this request."""
        whole = self.batch.arrays[name]
        return whole if self.stop is None else whole[self.start : self.stop]


class Service(Protocol):
    """An asynchronous function from Request to Response; everything on the path is one.

    `available` is readiness: whether something is there that can answer. False does not mean that
    requests are refused: they may wait, while a worker is being replaced say, but whoever has a choice
    sends them elsewhere. A layer says what the service below it says.

    Obligations: answer or raise `SalverError` exactly once; when the awaiting task is
    cancelled the caller has gone, and work not yet started must not start.
    """

    @property
    def available(self) -> bool:
        """Whether something is there that can answer a request."""

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Answer `request`."""
