"""More rows than one request may have: cut into requests, several under way at a time, answers joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from salver.client.prediction import of_one_version
from salver.protocol.errors import SalverError

__all__ = ["Part", "Parts", "cut_request", "in_parts", "join_answers"]

_T = TypeVar("_T")


class Part(NamedTuple):
    """Rows of one request: the first, and the one behind the last."""

    start: int
    stop: int


class Parts(Generic[_T]):
    """What is still to be asked of `rows` rows, `most` at a time, and what has been answered.

    Where a part is refused with TOO_MANY_ROWS, as it is when the endpoint has been deployed anew
    with smaller batches, it and all that follow are halved. Not for several threads.
    """

    def __init__(self, rows: int, most: int, on_progress: Callable[[int, int], None] | None = None) -> None:
        self._rows = rows
        self._most = most
        self._next = 0
        self._again: list[Part] = []
        self._answers: list[tuple[int, _T]] = []
        self._done = 0
        self._on_progress = on_progress

    def take(self) -> Part | None:
        """The next part to ask; None when none is left now."""
        if self._again:
            start, stop = self._again.pop()
            if stop - start > self._most:
                self._again.append(Part(start + self._most, stop))
                stop = start + self._most
            return Part(start, stop)
        if self._next >= self._rows:
            return None
        start, self._next = self._next, min(self._next + self._most, self._rows)
        return Part(start, self._next)

    def answered(self, part: Part, answer: _T) -> None:
        """A part has its answer."""
        self._answers.append((part.start, answer))
        self._done += part.stop - part.start
        if self._on_progress is not None:
            self._on_progress(self._done, self._rows)

    def refused(self, part: Part, error: SalverError) -> None:
        """A part was refused: ask it anew in halves, or raise `error`."""
        size = part.stop - part.start
        if error.code != "TOO_MANY_ROWS" or size == 1:
            raise error
        self._most = min(self._most, size // 2)
        self._again.append(part)

    def answers(self) -> list[tuple[int, _T]]:
        """Each answer with the number of its first row, in the order of the rows."""
        return sorted(self._answers, key=lambda answer: answer[0])


def in_parts(
    rows: int, most: int, ask: Callable[[int, int], _T], on_progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, _T]]:
    """Call `ask` with the first row and the row behind the last of one part after another; see `Parts`."""
    parts: Parts[_T] = Parts(rows, most, on_progress)
    while (part := parts.take()) is not None:
        try:
            answer = ask(*part)
        except SalverError as error:
            parts.refused(part, error)
        else:
            parts.answered(part, answer)
    return parts.answers()


def cut_request(request: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Some rows of a request of the Open Inference Protocol as JSON, nested or flat.

    REQUIRES a request that a server has read: every input has a shape and as much data as it says.
    """
    inputs = []
    for tensor in request["inputs"]:
        rows, *rest = tensor["shape"]
        data = tensor["data"]
        width = len(data) // rows
        inputs.append({**tensor, "shape": [stop - start, *rest], "data": data[start * width : stop * width]})
    return {**request, "inputs": inputs}


def join_answers(endpoint: str, parts: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """One answer of the Open Inference Protocol as JSON of many, each with the number of its first row.

    Raises CONFLICT as `of_one_version`.
    """
    answers = [answer for _, answer in parts]
    of_one_version(endpoint, [str(answer.get("model_version", "")) for answer in answers])
    outputs = []
    for number, output in enumerate(answers[0]["outputs"]):
        same = [answer["outputs"][number] for answer in answers]
        shape = [sum(each["shape"][0] for each in same), *output["shape"][1:]]
        outputs.append({**output, "shape": shape, "data": [element for each in same for element in each["data"]]})
    joined = {**answers[0], "outputs": outputs}
    parameters = {name: value for answer in answers for name, value in answer.get("parameters", {}).items()}
    warnings = [
        f"rows {start}-{start + answer['outputs'][0]['shape'][0] - 1}: {warning}"
        for start, answer in parts
        for warning in answer.get("parameters", {}).get("salver_warnings", "").split("\n")
        if warning
    ]
    if warnings:
        parameters["salver_warnings"] = "\n".join(warnings)
    return joined | ({"parameters": parameters} if parameters else {})
