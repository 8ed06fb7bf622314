"""Recorded traffic: a request and its answer on each line, in JSON. What `salver record` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["Recorded", "RecordedOutput", "read_traffic"]

_MOST_BYTES: Final = 512 * 2**20
_MOST_EXCHANGES: Final = 100_000


class RecordedOutput(msgspec.Struct, frozen=True):
    """One output of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any = None


class _Answer(msgspec.Struct, frozen=True):
    outputs: tuple[RecordedOutput, ...]
    model_version: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """One exchange: what was asked, and the answer or the code of the refusal."""

    request: msgspec.Raw
    """The request in JSON, as it was sent."""
    answer: _Answer | None = None
    error: str = ""

    @property
    def outputs(self) -> dict[str, RecordedOutput]:
        """The outputs of the answer, by name; none of a refusal."""
        return {} if self.answer is None else {each.name: each for each in self.answer.outputs}


def read_traffic(path: Path) -> tuple[Recorded, ...]:
    """The exchanges of a file; raises INVALID_SETTING naming the line that is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SalverError(
                "INVALID_SETTING", f"{path.name!r} is larger than {_MOST_BYTES} bytes", "keep a sample of it"
            )
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SalverError(
            "INVALID_SETTING", f"cannot read the traffic {path.name!r}: {error.strerror}", "make it with salver record"
        ) from None
    decoder = msgspec.json.Decoder(Recorded)
    found: list[Recorded] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            exchange = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SalverError(
                "INVALID_SETTING", f"{path.name!r}, line {number}: {error}", "see salver record"
            ) from None
        if (exchange.answer is None) == (not exchange.error):
            raise SalverError(
                "INVALID_SETTING", f"{path.name!r}, line {number} has neither an answer nor an error, or both"
            )
        found.append(exchange)
        if len(found) > _MOST_EXCHANGES:
            raise SalverError("INVALID_SETTING", f"{path.name!r} has more than {_MOST_EXCHANGES} exchanges")
    return tuple(found)
