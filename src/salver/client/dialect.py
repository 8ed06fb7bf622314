"""What travels between a client and a server, whatever carries it: the seam between flows and transports.

    flow    a generator, the same for sync and async: what to send, when to wait, what it means
      | yields Transmit and Pause
    client  carries them out, blocking or awaiting
      | Question -> Reply
    transport  one of four: HTTP or gRPC, sync or async

A `Dialect` writes questions and reads replies, without a socket in sight.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from salver.client.errors import CallError
from salver.client.prediction import EndpointMetadata, Prediction
from salver.protocol.errors import SalverError
from salver.protocol.tensor import Tensor

__all__ = [
    "Ask",
    "AsyncTransport",
    "Configuration",
    "Dialect",
    "Flow",
    "Inference",
    "Pause",
    "Question",
    "Reply",
    "Scalar",
    "Transmit",
    "Transport",
    "check_request_id",
    "retry_after",
    "unreadable",
]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_LONGEST_ID = 128

Scalar = bool | int | float | str
"""A value of a request's parameter."""
Content = bytes | memoryview


class Question(NamedTuple):
    """One request, written for the wire: `target` is a path, or a method of gRPC; `verb` is of HTTP."""

    target: str
    body: tuple[Content, ...] = ()
    """Sent one after another, which spares joining large tensors."""
    headers: tuple[tuple[str, str], ...] = ()
    verb: str = "GET"


class Reply(NamedTuple):
    """What came back: a status of HTTP, or the number of a gRPC status.

    `headers` have names in lower case; in gRPC they are the metadata, leading and trailing.
    `body` belongs to whoever reads it.
    """

    status: int
    headers: Mapping[str, str]
    body: Content
    reason: str = ""


class Inference(msgspec.Struct, frozen=True):
    """One prediction to ask for."""

    endpoint: str
    version: str | int | None
    tensors: list[Tensor]
    outputs: list[str] | None
    parameters: Mapping[str, Scalar]
    request_id: str | None


class Configuration(NamedTuple):
    """What is of use in the configuration of an endpoint."""

    max_batch: int | None
    """None where requests are not made of rows."""
    idempotent: bool
    """Whether its author declares that a request may run twice."""
    optional: frozenset[str] = frozenset()
    """The inputs that may be left out."""


class Ask(NamedTuple, Generic[_T_co]):
    """Something to ask: `write` is given the seconds that are left, anew for each attempt."""

    write: Callable[[float], Question]
    read: Callable[[Reply], _T_co]


class Dialect(Protocol):
    """Writes questions and reads replies in one protocol. Reading raises INTERNAL for what is no answer."""

    def infer(self, inference: Inference) -> Ask[Prediction]:
        """A prediction; raises INVALID_PARAMETER for what the protocol cannot say."""

    def metadata(self, endpoint: str, version: str | int | None) -> Ask[EndpointMetadata]:
        """What an endpoint takes and gives."""

    def configuration(self, endpoint: str, version: str | int | None) -> Ask[Configuration]:
        """How an endpoint is deployed."""

    def models(self) -> Ask[list[str]]:
        """The names of all endpoints."""

    def ready(self, endpoint: str | None, version: str | int | None) -> Ask[bool]:
        """Whether an endpoint, or the server, answers predictions."""

    def refusal(self, reply: Reply) -> CallError | None:
        """What a reply that is no answer says; None for an answer."""


class Transport(Protocol):
    """Carries questions to one server. May be shared by threads.

    `exchange` returns whatever the server replies, errors included; raises CallError when nothing
    came within `left_s` seconds, and for what happens on the way.
    """

    def exchange(self, question: Question, left_s: float) -> Reply:
        """Send a question and wait for its reply."""

    def close(self) -> None:
        """Close the connections."""


class AsyncTransport(Protocol):
    """The same for one event loop. A cancelled exchange is cancelled at the server too."""

    async def exchange(self, question: Question, left_s: float) -> Reply:
        """Send a question and wait for its reply."""

    async def close(self) -> None:
        """Close the connections."""


class Transmit(NamedTuple):
    """A step of a flow: exchange this; the flow is sent the reply, or thrown the error."""

    question: Question
    left_s: float


class Pause(NamedTuple):
    """A step of a flow: wait."""

    seconds: float


Flow = Generator[Transmit | Pause, Any, _T]
"""Steps that are carried out by a client, and what they come to."""


def check_request_id(request_id: str) -> str:
    """A request id that a header can carry; raises INVALID_PARAMETER."""
    if not (request_id.isascii() and request_id.isprintable() and 0 < len(request_id) <= _LONGEST_ID):
        raise SalverError(
            "INVALID_PARAMETER",
            f"the request id is {request_id[:140]!r}",
            f"use 1-{_LONGEST_ID} printable ASCII characters",
        )
    return request_id


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After; None without one. A date is not read: clocks differ."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def unreadable(problem: str) -> CallError:
    """An answer that is not the protocol's."""
    return CallError("INTERNAL", f"the answer is not the Open Inference Protocol's: {problem}", may_have_run=True)
