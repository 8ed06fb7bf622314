"""One inference: what was asked and what was answered, free of any wire format.

Doors build a `Request`, services answer it with a `Response`, doors write that out. Both are
structs because one of each is made per request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from salver.protocol.tensor import Tensor

__all__ = [
    "BatchOutputs",
    "CacheNote",
    "CacheWish",
    "Chunks",
    "Request",
    "RequestedOutput",
    "Response",
    "SequenceStep",
    "Service",
    "StreamingService",
]


class RequestedOutput(NamedTuple):
    """One output a client named: in binary or not, or as its `classification` largest classes."""

    name: str
    binary: bool | None = None
    classification: int = 0


class CacheWish(NamedTuple):
    """What a client asks of the cache of its endpoint; the default is what everybody gets who asks nothing."""

    look: bool = True
    """Whether a kept answer will do, or one that is being computed already."""
    keep: bool = True
    """Whether the answer may be kept."""
    only_kept: bool = False
    """Whether nothing but a kept answer will do."""
    max_age_s: float = float("inf")
    """A kept answer will do up to this age."""
    min_fresh_s: float = 0.0
    """And if it may be given for so long still."""
    unless: frozenset[bytes] = frozenset()
    """The tags of answers that the client has already; `*` stands for any kept one."""


class CacheNote(NamedTuple):
    """What the cache has to say of an answer."""

    source: str
    """`hit` for a kept answer, `miss` for one that was computed for this request, `shared` for one that was
    computed for another, identical one."""
    tag: str = ""
    """Names the content: identical answers have the same tag. Empty for one that is not kept."""
    since_s: float = 0.0
    """When the model gave it; monotonic."""
    ttl_s: float = 0.0
    """For how long from then on it is given."""


class SequenceStep(NamedTuple):
    """Which session a request is a step of. Only a session of one step, begun and ended by it, has no id."""

    id: int | str | None
    start: bool = False
    end: bool = False


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
    priority: int = 0
    """1 is the most urgent; 0 leaves it to the deployment."""
    tenant: str = ""
    """On whose behalf, by the token; empty without one."""
    cache: CacheWish | None = None
    """What is asked of the cache, if its endpoint has one and the client has wishes."""
    sequence: SequenceStep | None = None
    """The step of a session that this is, for versions that keep state."""

    def __repr__(self) -> str:
        return f"<Request {self.id or '-'} for {self.endpoint}, {self.rows} rows>"


class BatchOutputs:
    """The outputs of one batch of `rows` rows, shared by the responses cut from it.

    They took `compute_s` seconds at `placement`, and have so many `elements` in all. `codec_cache`
    belongs to the doors: what they compute once per batch for all its requests.
    """

    __slots__ = ("arrays", "codec_cache", "compute_s", "elements", "placement", "rows")

    def __init__(
        self, arrays: dict[str, np.ndarray[Any, Any]], rows: int = 1, compute_s: float = 0.0, placement: str = ""
    ) -> None:
        self.arrays = arrays
        self.elements = 0
        for array in arrays.values():
            self.elements += array.size
        self.rows = rows
        self.compute_s = compute_s
        self.placement = placement
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
    """Seconds it waited for a replica."""
    hold_s: float = 0.0
    """Seconds it then waited for a fuller batch, although a replica was free."""
    cache: CacheNote | None = None
    """Where it comes from, if its endpoint has a cache that the request did not rule out."""
    waits: tuple[tuple[str, float], ...] = ()
    """What it waited for before the queue, in that order, and for how many seconds: `load` of its version, its
    `turn` in a session."""

    on_unwritten: Callable[[], None] | None = None

    def unwritten(self) -> None:
        """No client will hear of it: its door cannot write it. To be called by that door, once.

        For a step of a session this is not as if it had not run.
        """
        if self.on_unwritten is not None:
            self.on_unwritten()

    def waited(self, cause: str, seconds: float) -> Response:
        """The same, after another wait in front of all others."""
        return msgspec.structs.replace(self, waits=((cause, seconds), *self.waits))

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


class Chunks(Protocol):
    """The answer to one request bit by bit: responses in order, then an end, or a `SalverError`."""

    def __aiter__(self) -> AsyncIterator[Response]:
        """Itself."""

    async def __anext__(self) -> Response:
        """Wait for the next one; raises StopAsyncIteration at the end."""

    def close(self) -> None:
        """Nobody wants more of it; to be called by whoever has it, however it ends."""


class StreamingService(Service, Protocol):
    """The service of a version whose manifest says that it streams."""

    def open_stream(self, request: Request) -> Chunks:
        """Answer `request` bit by bit; raises `SalverError` where it is refused at once."""
