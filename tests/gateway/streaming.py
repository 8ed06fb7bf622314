"""Models that answer bit by bit, as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.gateway.computing import Computed
from tests.gateway.servers import Served
from tests.gateway.wire import RawClient

from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.routing.router import Target

WORDS = Signature(
    (TensorSpec("text_input", "BYTES", (-1, 1)),),
    (TensorSpec("text_output", "BYTES", (-1, 1)),),
)
Say = Callable[[str], Iterator[Any]]


class Opened:
    """One open stream: gives what the generator yields - a text, an error, or a wait for `go`."""

    def __init__(self, request: Request, words: Iterator[Any]) -> None:
        self.request = request
        self.words = words
        self.given = 0
        self.closed = 0

    def __aiter__(self) -> Opened:
        return self

    async def __anext__(self) -> Response:
        await asyncio.sleep(0)
        for word in self.words:
            if isinstance(word, Exception):
                raise word
            if isinstance(word, asyncio.Event):
                await word.wait()
                continue
            self.given += 1
            array = np.empty((1, 1), dtype=object)
            array[0, 0] = word if isinstance(word, bytes) else word.encode()
            return Response("talk", "1.2.3", BatchOutputs({"text_output": array}, 1, 0.001, "process"), 0, 1)
        raise StopAsyncIteration

    def close(self) -> None:
        self.closed += 1


class Talking(Computed):
    """A service that streams what `say` makes of the text it is given; in one piece it is joined."""

    def __init__(self, say: Say) -> None:
        super().__init__(self._joined, batched=True)
        self.say = say
        self.refusal: Exception | None = None
        self.opened: list[Opened] = []

    def _joined(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        joined = np.empty((1, 1), dtype=object)
        joined[0, 0] = "".join(self.say(arrays["text_input"][0, 0].decode())).encode()
        return {"text_output": joined}

    def open_stream(self, request: Request) -> Opened:
        if self.refusal is not None:
            raise self.refusal
        text = request.inputs["text_input"].numpy()[0, 0].decode()
        self.opened.append(Opened(request, self.say(text)))
        return self.opened[-1]


def publish_talk(served: Served, say: Say, signature: Signature = WORDS) -> Talking:
    """Serve `talk`, beside what there is."""
    assert served.plane is not None
    router = served.plane.router
    talking = Talking(say)
    manifest = VersionManifest("talk", "1.2.3", 4, "ab" * 32, "python", (), signature, streams=True)
    targets = dict(router.targets()) | {"talk": Target(DeploymentSpec("talk", "talk", "1.2.3"), manifest, talking)}
    served.thread.run(lambda: router.publish(targets, {}))
    return talking


def chunked_part(client: RawClient) -> bytes:
    """The next chunk of a chunked reply; empty at its end."""
    size = int(client._until(b"\r\n"), 16)
    while len(client.received) < size + 2:
        assert client._more(), "the connection ended inside a chunk"
    part, rest = client.received[:size], client.received[size:]
    assert rest.startswith(b"\r\n")
    client.received = rest[2:]
    return part


def spans(told: str) -> dict[str, str]:
    """What a timing tells, by name."""
    found: dict[str, str] = {}
    for span in told.split(", "):
        name, _, value = span.partition(";")
        assert name not in found
        found[name] = value
    return found


def check_timing_of_stream(told: str, chunks: int) -> None:
    """Check what is told behind the chunks of `talk`, which take it a millisecond each."""
    found = spans(told)
    assert list(found) == ["first", "compute", "chunks", "placement", "total"]
    assert (found["compute"], found["chunks"]) == (f"dur={chunks}.000", f'desc="{chunks}"')
    assert found["placement"] == 'desc="process"'
    first, total = (float(found[name].removeprefix("dur=")) for name in ("first", "total"))
    assert 0 < first <= total


def events(client: RawClient) -> list[bytes]:
    """The data of all events of a chunked reply, each of which is one chunk."""
    found = []
    while part := chunked_part(client):
        assert part.startswith(b"data: ")
        assert part.endswith(b"\n\n")
        found.append(part[6:-2])
    return found
