"""More rows than one request may have: cut into requests, answered one after another, joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from salver.client.prediction import of_one_version
from salver.protocol.errors import SalverError

__all__ = ["cut_request", "in_parts", "join_answers", "rows_of"]

_T = TypeVar("_T")


def rows_of(inputs: Any) -> tuple[int, int]:
    """The rows of what `Client.predict` takes and the bytes of one, as far as known.

    1 row where it does not come apart into rows: then whoever gets it says what is wrong.
    """
    values = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    sizes = {len(value) if _is_cuttable(value) else -1 for value in values}
    if len(sizes) != 1 or (rows := sizes.pop()) < 1:
        return 1, 0
    return rows, sum(value.nbytes for value in values if isinstance(value, np.ndarray)) // rows


def _is_cuttable(value: Any) -> bool:
    return (isinstance(value, np.ndarray) and value.ndim > 0) or isinstance(value, list | tuple)


def in_parts(
    rows: int, most: int, ask: Callable[[int, int], _T], on_progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, _T]]:
    """Call `ask` with the first row and the row behind the last of one part after another.

    Returns each answer with the number of its first row. Where `ask` raises TOO_MANY_ROWS, as it does when
    the endpoint has been deployed anew with smaller batches, parts are halved.
    """
    parts: list[tuple[int, _T]] = []
    start = 0
    while start < rows:
        stop = min(start + most, rows)
        try:
            parts.append((start, ask(start, stop)))
        except SalverError as error:
            if error.code != "TOO_MANY_ROWS" or stop - start == 1:
                raise
            most = (stop - start) // 2
            continue
        start = stop
        if on_progress is not None:
            on_progress(start, rows)
    return parts


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
