"""Azure Machine Learning's requests for MLflow models: MLflow's forms, all under `input_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from salver.protocol.errors import SalverError

__all__ = ["mlflow_form"]

_INPUT: Final = "input_data"
_FORMS: Final = frozenset({"dataframe_split", "dataframe_records", "instances", "inputs"})
_FRAME: Final = frozenset({"columns", "index", "data"})


def mlflow_form(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """`body` as MLflow's scoring server takes it; what is not under `input_data` stays as it is.

    Raises INVALID_JSON where there are inputs in another form as well.

    >>> mlflow_form({"input_data": {"columns": ["a"], "data": [[1]]}})
    {'dataframe_split': {'columns': ['a'], 'data': [[1]]}}
    """
    if _INPUT not in body:
        return body
    value = body[_INPUT]
    if not _FORMS.isdisjoint(body):
        raise SalverError("INVALID_JSON", "'input_data' stands beside another form of inputs", "send one of them")
    rest = {name: each for name, each in body.items() if name != _INPUT}
    if isinstance(value, dict) and "data" in value and value.keys() <= _FRAME:
        return {"dataframe_split": value, **rest}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {"dataframe_records": value, **rest}
    return {"inputs": value, **rest}
