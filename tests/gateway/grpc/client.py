"""A client of gRPC that sends whatever frames it is told to, and checks those that come."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import hpack
import numpy as np
from tests.gateway.servers import Served
from tests.gateway.wire import RawClient, eventually

from salver.gateway.grpc import frames as f
from salver.protocol.proto import message

OIP = "/inference.GRPCInferenceService/"
REQUEST = message("inference.ModelInferRequest")
RESPONSE = message("inference.ModelInferResponse")
STREAMED = message("inference.ModelStreamInferResponse")
CHECK_PATH = "/grpc.health.v1.Health/"
_WIDE = 2**30


class Got(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


_TOLD = ("grpc-", "x-salver", "server-timing", "retry-after", "etag", "cache-control", "age")


class Answer:
    """What came on one stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.data = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.trailers["grpc-status"])

    @property
    def code(self) -> str | None:
        return self.trailers.get("x-salver-error")

    @property
    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.data):
            compressed, size = struct.unpack_from(">BI", self.data, at)
            assert not compressed
            found.append(self.data[at + 5 : at + 5 + size])
            assert len(found[-1]) == size
            at += 5 + size
        return found

    @property
    def infer(self) -> Any:
        assert (self.status, self.trailers) == (0, {"grpc-status": "0"})
        (body,) = self.messages
        return RESPONSE.FromString(body)


class Http2Client:
    """Frames out as told, frames in by stream. Acknowledges settings and gives windows without end."""

    def __init__(self, raw: RawClient, *, settings: Iterable[tuple[int, int]] = ((4, _WIDE),), window: int = _WIDE):
        self.raw = raw
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder(max_header_list_size=2**20)
        self.next_id = 1
        self.answers: dict[int, Answer] = {}
        self.settings: dict[int, int] = {}
        self.windows: dict[int, int] = {0: f.DEFAULT_WINDOW}
        self.pings: list[Got] = []
        self.goaways: list[tuple[int, int, bytes]] = []
        self.ended = False
        self.send(f.PREFACE + f.pack_settings(settings))
        if window:
            self.send(f.pack_window_update(0, window))

    def send(self, data: bytes) -> None:
        self.raw.send(data)

    # Out.

    def head(self, path: str, *more: tuple[str, str], last: bool = False, plain: bool = False, **pseudo: str) -> bytes:
        """The HEADERS frame of the next stream."""
        stream_id, self.next_id = self.next_id, self.next_id + 2
        self.answers[stream_id] = Answer()
        pairs = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"} | {
            f":{name}": value for name, value in pseudo.items()
        }
        kind = [] if plain else [("content-type", "application/grpc"), ("te", "trailers")]
        block = self.encoder.encode([*pairs.items(), *kind, *more])
        return f.pack_frame(1, f.END_HEADERS | (f.END_STREAM if last else 0), stream_id, block)

    def start(self, method: str, *messages: Any, end: bool = True, headers: Iterable[tuple[str, str]] = ()) -> int:
        """Begin a call; returns the id of its stream."""
        path = method if method.startswith("/") else OIP + method
        data = self.head(path, *headers, last=end and not messages)
        stream_id = self.next_id - 2
        body = b"".join(map(framed, messages))
        self.send(data + (data_frames(stream_id, body, last=end) if body else b""))
        return stream_id

    def end(self, stream_id: int) -> None:
        self.send(f.pack_frame(0, f.END_STREAM, stream_id))

    def cancel(self, stream_id: int) -> None:
        self.send(f.pack_reset(stream_id, f.ErrorCode.CANCEL))

    # In.

    def frame(self) -> Got | None:
        """The next frame, or None at the end of the connection."""
        raw = self.raw
        while len(raw.received) < 9 or len(raw.received) < 9 + int.from_bytes(raw.received[:3]):
            if not raw._more():
                self.ended = True
                assert not raw.received, "the connection ended within a frame"
                return None
        size = int.from_bytes(raw.received[:3])
        got = Got(raw.received[3], raw.received[4], int.from_bytes(raw.received[5:9]), raw.received[9 : 9 + size])
        raw.received = raw.received[9 + size :]
        self._note(got)
        return got

    def _note(self, got: Got) -> None:
        kind, flags, stream_id, payload = got
        if kind == f.Frame.SETTINGS and not flags & f.ACK:
            self.settings = dict(f.unpack_settings(payload))
            self.raw.try_send(f.pack_frame(f.Frame.SETTINGS, f.ACK, 0))
        elif kind == f.Frame.WINDOW_UPDATE:
            self.windows[stream_id] = self.windows.get(stream_id, 0) + int.from_bytes(payload)
        elif kind == f.Frame.PING:
            self.pings.append(got)
        elif kind == f.Frame.GOAWAY:
            self.goaways.append((int.from_bytes(payload[:4]), int.from_bytes(payload[4:8]), payload[8:]))
        elif kind == f.Frame.RST_STREAM:
            self.answers[stream_id].reset = int.from_bytes(payload)
        elif kind in (f.Frame.HEADERS, f.Frame.DATA):
            self._take(self.answers[stream_id], got)

    def _take(self, answer: Answer, got: Got) -> None:
        assert not answer.ended, "something behind the end of an answer"
        if got.kind == f.Frame.DATA:
            answer.data += got.payload
        else:
            pairs = self.decoder.decode(got.payload)
            assert len(dict(pairs)) == len(pairs)
            if not answer.headers:
                answer.headers = dict(pairs)
            if got.flags & f.END_STREAM:
                answer.trailers = {k: v for k, v in pairs if k.startswith(_TOLD)}
        answer.ended = bool(got.flags & f.END_STREAM)

    def answer(self, stream_id: int) -> Answer:
        """Wait for the end of a call."""
        answer = self.answers[stream_id]
        while not answer.ended and answer.reset is None:
            assert self.frame() is not None, f"the connection ended: {self.goaways}"
        return answer

    def message(self, stream_id: int, count: int) -> Any:
        """Wait for the message number `count` of a stream of inferences."""
        answer = self.answers[stream_id]
        while len(_whole(answer.data)) < count:
            assert not answer.ended, answer.trailers
            assert self.frame() is not None
        return STREAMED.FromString(_whole(answer.data)[count - 1])

    def call(self, method: str, request: Any = b"", **more: Any) -> Answer:
        return self.answer(self.start(method, request, **more))

    def goaway(self) -> tuple[int, int, bytes]:
        """Wait for a GOAWAY."""
        while not self.goaways:
            assert self.frame() is not None, "the connection ended without a word"
        return self.goaways[-1]

    def is_closed(self) -> bool:
        while self.frame() is not None:
            pass
        return True


def _whole(data: bytes) -> list[bytes]:
    found = []
    while len(data) >= 5 and len(data) >= 5 + (size := int.from_bytes(data[1:5])):
        found.append(data[5 : 5 + size])
        data = data[5 + size :]
    return found


def framed(content: Any, *, compressed: int = 0) -> bytes:
    """A message behind its head."""
    body = content if isinstance(content, bytes) else content.SerializeToString()
    return struct.pack(">BI", compressed, len(body)) + body


def data_frames(stream_id: int, body: bytes, *, last: bool = True, size: int = 2**14) -> bytes:
    """DATA frames of `size` bytes."""
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    flags = [0] * (len(parts) - 1) + [f.END_STREAM if last else 0]
    return b"".join(f.pack_frame(0, flag, stream_id, part) for flag, part in zip(flags, parts, strict=True))


def row(*values: float, model: str = "toy", rows: int = 1, **more: Any) -> Any:
    """A ModelInferRequest of rows of four numbers."""
    request = REQUEST(model_name=model, **more)
    request.inputs.add(name="X", datatype="FP32", shape=[rows, 4])
    request.raw_input_contents.append(np.array([values or (1, 2, 3, 0)] * rows, np.float32).tobytes())
    return request


def dial(served: Served, **more: Any) -> Http2Client:
    return Http2Client(served.connect(), **more)


def waiting(server: Served, count: int) -> None:
    eventually(lambda: len(server.held.asked) == count)


def cancelled(server: Served, count: int) -> None:
    eventually(lambda: sum(answer.cancelled() for _, answer in server.held.asked) == count)
