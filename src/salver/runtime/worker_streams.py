"""The open streams of a worker: stepped in turn, a chunk each, as far as they have credit."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Generator

from salver.clock import SYSTEM_CLOCK
from salver.protocol.frames import (
    ARENA_BYTES,
    SHARED_ABOVE_BYTES,
    ArrayHeader,
    FrameKind,
    ProblemHeader,
    StreamHeader,
    describe_arrays,
    pack_frame,
)
from salver.runtime.batch import problem_of, refusal_of
from salver.runtime.environment import ending_copies
from salver.runtime.formats import Loaded, Streaming
from salver.runtime.model import Arrays

__all__ = ["Answers", "WorkerStreams"]

Send = Callable[[bytes], None]


class Answers:
    """What the model gave, as it goes to the server: through the socket, or large through shared memory.

    The memory holds one answer at a time; until the server has TAKEN it, others go through the socket. No answer
    is larger than what the worker may take, `most_bytes`: the server believes no frame that is.
    """

    def __init__(self, memory: mmap.mmap, most_bytes: int) -> None:
        self._memory = memory
        self._most_bytes = most_bytes
        self._free = True

    def taken(self) -> None:
        """The server has read what lay in the memory."""
        self._free = True

    def frame(self, kind: FrameKind, number: int, outputs: Arrays, seconds: float) -> bytes:
        """The RESULT or CHUNK, to be sent; raises TypeError or ValueError for what cannot be served."""
        try:
            entries, parts = describe_arrays(outputs)
            total = sum(entry.size_bytes for entry in entries)
            shared = self._free and SHARED_ABOVE_BYTES < total <= ARENA_BYTES
            head = pack_frame(kind, ArrayHeader(number, entries, shared, seconds), 0 if shared else total)
            if not shared:
                return b"".join((head, *parts))
        except MemoryError:
            raise ValueError(f"it and its copies do not fit into the worker's {self._most_bytes} bytes") from None
        self._free = False
        self._memory.seek(0)
        for part in parts:
            self._memory.write(part)
        return head


class _Open:
    """One open stream, and how many chunks of it may be sent."""

    __slots__ = ("chunks", "credit")

    def __init__(self, chunks: Generator[Arrays, None, None]) -> None:
        self.chunks = chunks
        self.credit = 0


class WorkerStreams:
    """The streams of one loaded version; belongs to the one thread that computes.

    Each stream has exactly one last word, in answer to its last step or to a CANCEL.
    """

    def __init__(self, loaded: Loaded, send: Send, answers: Answers) -> None:
        self._loaded = loaded
        self._send = send
        self._answers = answers
        self._open: dict[int, _Open] = {}
        self._turns: dict[int, None] = {}
        """Those with credit, the next one first."""

    @property
    def can_step(self) -> bool:
        """Whether any stream has credit."""
        return bool(self._turns)

    def open(self, number: int, inputs: Arrays) -> None:
        """Begin a stream; nothing of the model runs before there is credit."""
        # Only versions whose manifest says so are asked for streams.
        loaded: Streaming = self._loaded  # type: ignore[assignment]
        self._open[number] = _Open(loaded.stream(inputs))

    def credit(self, number: int, chunks: int) -> None:
        """So many more chunks of a stream may be sent."""
        stream = self._open.get(number)
        if stream is not None:
            stream.credit += chunks
            self._turns[number] = None

    def cancel(self, number: int) -> None:
        """Nobody wants the rest of a stream, which may have ended by itself."""
        if number in self._open:
            self._close(number)
            self._send(pack_frame(FrameKind.ENDED, StreamHeader(number)))

    def step(self) -> None:
        """Let the stream whose turn it is take one step."""
        number = next(iter(self._turns))
        del self._turns[number]
        stream = self._open[number]
        began_s = SYSTEM_CLOCK.monotonic_s()
        try:
            with ending_copies():
                chunk = next(stream.chunks)
        except StopIteration:
            self._end(number, pack_frame(FrameKind.ENDED, StreamHeader(number)))
            return
        except Exception as error:  # noqa: BLE001 - whatever a model raises ends its stream
            told = ProblemHeader(number, problem_of(error), refusal_of(error))
            self._end(number, pack_frame(FrameKind.STREAM_RAISED, told))
            return
        try:
            frame = self._answers.frame(FrameKind.CHUNK, number, chunk, SYSTEM_CLOCK.monotonic_s() - began_s)
        except (TypeError, ValueError) as error:
            problem = f"a chunk of the model cannot be served: {error}"
            self._end(number, pack_frame(FrameKind.STREAM_BAD_OUTPUT, ProblemHeader(number, problem)))
            return
        self._send(frame)
        stream.credit -= 1
        if stream.credit > 0:
            self._turns[number] = None

    def _end(self, number: int, last_word: bytes) -> None:
        self._close(number)
        self._send(last_word)

    def close(self) -> None:
        """Close all streams."""
        for number in list(self._open):
            self._close(number)

    def _close(self, number: int) -> None:
        self._turns.pop(number, None)
        stream = self._open.pop(number)
        try:
            with ending_copies():
                stream.chunks.close()
        except Exception as error:  # noqa: BLE001 - nobody is left to tell
            sys.stderr.write(f"a stream could not be closed: {problem_of(error)}\n")
