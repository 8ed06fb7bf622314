"""Salver serves machine-learning models and keeps them honest while they serve.

A tour of the house, from the ground up. `protocol` holds what crosses a boundary; `stats`
numbers, `telemetry` what is emitted, `storage` what is kept, `security` who may do what.
Above them `runtime` loads versions and runs batches, `routing` finds who answers, `registry`
knows every version. The doors are `gateway` (predictions) and `control` (changes). `app` is
the only place where concrete things meet; `cli` is how people call it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salver.client import AsyncClient, Client
    from salver.client.registry import Registry
    from salver.protocol.signature import TensorSpec
    from salver.runtime.model import BadInputError, Model
    from salver.server import Server

__all__ = ["AsyncClient", "BadInputError", "Client", "Model", "Registry", "Server", "TensorSpec", "__version__"]

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "salver.client",
    "BadInputError": "salver.runtime.model",
    "Client": "salver.client",
    "Model": "salver.runtime.model",
    "Registry": "salver.client.registry",
    "Server": "salver.server",
    "TensorSpec": "salver.protocol.signature",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a worker that needs Model must not pay for an HTTP client.
    if name not in _HOMES:
        raise AttributeError(f"module 'salver' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
