"""The ranges of a deployment's settings."""

from __future__ import annotations

import difflib
from typing import Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS, OPTIMIZATIONS, PROVIDERS
from salver.protocol.tables import DeploymentSpec, RuntimeOptions

__all__ = ["RANGES", "check_settings", "check_settings_of_format"]

RANGES: Final[dict[str, tuple[float, float]]] = {
    "replicas": (1, 64),
    "max_batch": (1, 65_536),
    "max_cost": (0, 2**53),  # integers that JSON readers keep
    "max_wait_s": (0, 10),
    "max_queue": (1, 1_000_000),
    "deadline_s": (0.001, 86_400),
    "hang_s": (0, 86_400),
    "load_timeout_s": (0.1, 86_400),
    "worker_memory_bytes": (2**26, 2**43),
    "runtime.threads": (1, 256),
}
_HIGHEST_PROCESSOR: Final = 8191
"""CONFIG_NR_CPUS of the largest Linux builds, less one."""


def check_settings(spec: DeploymentSpec) -> DeploymentSpec:
    """Return `spec` with every value of its declared type, or raise INVALID_SETTING.

    The message names the setting, the value and the range.
    """
    try:
        spec = msgspec.convert(msgspec.to_builtins(spec), DeploymentSpec)
    except msgspec.ValidationError as error:
        raise SalverError(
            "INVALID_SETTING", f"the deployment is not well formed: {error}", "see the settings"
        ) from error
    for name, (low, high) in RANGES.items():
        section, _, field = name.rpartition(".")
        value = getattr(spec.runtime if section else spec, field)
        if not low <= value <= high:
            raise _refused(name, value, f"give a number from {low:g} to {high:.17g}")
    _check_runtime(spec.runtime)
    if spec.max_wait_s >= spec.deadline_s:
        raise _refused(
            "max_wait_s", spec.max_wait_s, f"lower it below deadline_s, which is {spec.deadline_s:g}, or raise that"
        )
    return spec


def check_settings_of_format(spec: DeploymentSpec, format: str) -> None:
    """Raise INVALID_SETTING for a setting that versions of `format` would not heed."""
    facts = FORMATS.get(format)
    if facts is None or facts.has_providers:
        return
    plain = RuntimeOptions()
    for name in ("providers", "optimization"):
        value = getattr(spec.runtime, name)
        if value != getattr(plain, name):
            raise _refused(
                f"runtime.{name}",
                f"{_written(value)}, which means nothing to a version of format {format}",
                f"leave it out, or where it was kept from before, set it back to {_written(getattr(plain, name))}",
            )


def _written(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_runtime(runtime: RuntimeOptions) -> None:
    if runtime.optimization not in OPTIMIZATIONS:
        raise _refused("runtime.optimization", runtime.optimization, f"use one of {', '.join(OPTIMIZATIONS)}")
    if not runtime.providers or len(set(runtime.providers)) != len(runtime.providers):
        raise _refused("runtime.providers", list(runtime.providers), "name at least one provider, each once")
    unknown = [name for name in runtime.providers if name not in PROVIDERS]
    if unknown:
        by_name = {_plain(name): name for name in PROVIDERS}
        close = difflib.get_close_matches(_plain(unknown[0]), by_name, n=1)
        remedy = f"use {by_name[close[0]]}" if close else f"use one of {', '.join(PROVIDERS)}"
        raise _refused("runtime.providers", unknown[0], remedy)
    if any(not 0 <= processor <= _HIGHEST_PROCESSOR for processor in runtime.pin) or len(set(runtime.pin)) != len(
        runtime.pin
    ):
        raise _refused("runtime.pin", list(runtime.pin), f"name processors from 0 to {_HIGHEST_PROCESSOR}, each once")


def _plain(provider: str) -> str:
    return provider.lower().removesuffix("provider").removesuffix("execution")


def _refused(name: str, value: object, remedy: str) -> SalverError:
    return SalverError("INVALID_SETTING", f"setting {name} is {str(value)[:200]}", remedy)
