"""One question to a child process of this package, and one answer: values, whatever foreign code does in between."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from salver.protocol.errors import CATALOGUE, SalverError
from salver.runtime.child import LONGEST_PROBLEM, MEMORY_BYTES, Ended, Ending, run_child

__all__ = ["answer_once", "ask_child"]

Question = TypeVar("Question", bound=msgspec.Struct)
Answer = TypeVar("Answer")


class _Answered(msgspec.Struct, frozen=True, tag=True):
    """What a child of this package says when all went well."""

    answer: msgspec.Raw


class _Refused(msgspec.Struct, frozen=True, tag=True):
    """A `SalverError` that was raised there."""

    code: str
    message: str
    remedy: str


class _Raised(msgspec.Struct, frozen=True, tag=True):
    """Any other exception."""

    problem: str


def ask_child(
    module: str,
    question: msgspec.Struct,
    answer: type[Answer],
    *,
    limit_s: float,
    answer_bytes: int,
    directory: Path | None = None,
    variables: Mapping[str, str] | None = None,
    memory_bytes: int | None = MEMORY_BYTES,
    shown: bool = False,
    confined: bool = False,
) -> Answer | Ended:
    """What `python -m MODULE`, whose main is `answer_once`, answers; how it ended where it does not answer.

    Parameters are those of `run_child`. Raises the SalverError that the child refuses with. Foreign code may have made
    the answer.
    """
    ended = run_child(
        [sys.executable, "-m", module],
        limit_s=limit_s,
        sent=msgspec.msgpack.encode(question),
        directory=directory,
        variables=variables,
        memory_bytes=memory_bytes,
        answer_bytes=answer_bytes,
        shown=shown,
        confined=confined,
    )
    if not ended.well:
        return ended._replace(how=f"{ended.how} and no answer") if ended.ending is Ending.EXITED else ended
    try:
        reply = msgspec.msgpack.decode(ended.output, type=_Answered | _Refused | _Raised)
        if isinstance(reply, _Answered):
            return msgspec.msgpack.decode(reply.answer, type=answer)
    except msgspec.DecodeError:
        return ended._replace(how=f"{ended.how} and no answer")
    if isinstance(reply, _Raised):
        return ended._replace(ending=Ending.RAISED, how=f"raised {reply.problem[:LONGEST_PROBLEM]}", complaint=b"")
    if reply.code not in CATALOGUE:
        return ended._replace(how=f"{ended.how} and no answer")
    raise SalverError(reply.code, reply.message, reply.remedy)


def answer_once(kind: type[Question], answer: Callable[[Question], object]) -> None:
    """In the child: answer the one question. What anybody prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    reply: _Answered | _Refused | _Raised
    try:
        question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=kind)
        reply = _Answered(msgspec.Raw(msgspec.msgpack.encode(answer(question))))
    except SalverError as error:
        reply = _Refused(error.code, error.message, error.remedy)
    except BaseException as error:  # noqa: BLE001 - foreign code may raise anything, and it is told
        from salver.runtime.batch import problem_of  # noqa: PLC0415 - what few need, and imports numpy

        reply = _Raised(problem_of(error))
    with answers:
        answers.write(msgspec.msgpack.encode(reply))
    # Threads that foreign code has left are not waited for.
    sys.stderr.flush()
    os._exit(0)
