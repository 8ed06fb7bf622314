"""Which session a request is a step of, in the words of the Open Inference Protocol or in headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from salver.protocol.errors import SalverError
from salver.protocol.request import SequenceStep

__all__ = ["read_sequence"]

_LONGEST_ID: Final = 256
_BOOLEANS: Final = {b"true": True, b"false": False}
_ID: Final = b"x-salver-sequence-id"
_START: Final = b"x-salver-sequence-start"
_END: Final = b"x-salver-sequence-end"


def read_sequence(parameters: Mapping[str, Any] | None, headers: Mapping[bytes, bytes]) -> SequenceStep:
    """The step that a request is, from its parameters `sequence_id`, `sequence_start` and `sequence_end`.

    Protocols whose requests have no parameters say the same in headers, where an id is always a text. An id is
    a whole number of 64 bits or a text; 0 and the empty text are none. Raises INVALID_PARAMETER for other
    values, and for a request without an id, unless it is first and last at once.
    """
    parameters = parameters or {}
    name = parameters.get("sequence_id", 0)
    if not name and _ID in headers:
        name = headers[_ID].decode("latin-1")
    start = _flag(parameters, "sequence_start", headers, _START)
    end = _flag(parameters, "sequence_end", headers, _END)
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise _refused("sequence_id", name, "give a whole number or a text")
    if isinstance(name, int) and not 0 <= name < 2**64:
        raise _refused("sequence_id", name, "give a whole number from 1 to 2**64 - 1, or a text")
    if isinstance(name, str) and len(name) > _LONGEST_ID:
        raise _refused("sequence_id", name, f"give at most {_LONGEST_ID} characters")
    if not name and not (start and end):
        raise SalverError(
            "INVALID_PARAMETER",
            "the model keeps a state for each session, and the request names none",
            "give the parameter sequence_id, and with the first step sequence_start",
        )
    return SequenceStep(name or None, start, end)


def _flag(parameters: Mapping[str, Any], name: str, headers: Mapping[bytes, bytes], header: bytes) -> bool:
    if name in parameters:
        value = parameters[name]
    elif header in headers:
        value = _BOOLEANS.get(headers[header].lower(), headers[header])
    else:
        return False
    if not isinstance(value, bool):
        raise _refused(name, value, "give true or false")
    return value


def _refused(name: str, value: object, remedy: str) -> SalverError:
    shown = "a very large number" if isinstance(value, int) and value.bit_length() > 64 else repr(value)[:80]
    return SalverError("INVALID_PARAMETER", f"{name} is {shown}", remedy)
