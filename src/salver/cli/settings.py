"""The settings of deployments for people: those that are not the default, and those that a deploy has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from salver.protocol.tables import DeploymentSpec

__all__ = ["describe_change", "describe_settings"]

_NAMING: Final = frozenset({"endpoint", "model", "version", "generation"})
"""What says which deployment it is rather than how it serves."""


def describe_settings(fields: Mapping[str, Any]) -> str:
    """Those that are not the default, of a deployment as it is stored and sent: without the defaults.

    >>> describe_settings(msgspec.to_builtins(DeploymentSpec("m", "m", "1.0.0", max_batch=8, slo_s=0.1)))
    'max_batch 8, slo_s 0.1'
    """
    return ", ".join(f"{name} {_written(value)}" for name, value in fields.items() if name not in _NAMING)


def describe_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Those that differ between two deployments.

    >>> describe_change({"version": "1.0.0", "slo_s": 0.1}, {"version": "2.0.0", "slo_s": 0.001, "required": False})
    'slo_s 0.1 -> 0.001, required true -> false'
    """
    return ", ".join(
        f"{name} {_written(before.get(name, default))} -> {_written(after.get(name, default))}"
        for name, default in _defaults().items()
        if before.get(name, default) != after.get(name, default)
    )


def _defaults() -> dict[str, Any]:
    return {
        field.name: msgspec.to_builtins(field.default)
        for field in msgspec.structs.fields(DeploymentSpec)
        if field.name not in _NAMING
    }


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
