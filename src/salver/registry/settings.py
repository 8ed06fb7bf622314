"""The ranges of a deployment's settings."""

from __future__ import annotations

import difflib
import re
from math import prod
from typing import Final

import msgspec

from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS, OPTIMIZATIONS, PROVIDERS
from salver.protocol.tables import BatchPolicy, DeploymentSpec, RuntimeOptions, VersionManifest

__all__ = ["RANGES", "check_settings", "check_settings_of_format", "check_settings_of_version", "unheeded_under"]

RANGES: Final[dict[str, tuple[float, float]]] = {
    "replicas": (1, 64),
    "max_batch": (1, 65_536),
    "max_cost": (0, 2**53),  # integers that JSON readers keep
    "max_wait_s": (0, 10),
    "min_batch": (1, 65_536),
    "slo_s": (0, 3600),
    "max_queue": (1, 1_000_000),
    "max_age_s": (0, 86_400),
    "max_streams": (1, 4096),
    "max_sessions": (1, 1_000_000),
    "session_idle_s": (0.1, 86_400),
    "cache_bytes": (0, 2**40),
    "cache_ttl_s": (0.001, 2_592_000),
    "deadline_s": (0.001, 86_400),
    "hang_s": (0, 86_400),
    "load_timeout_s": (0.1, 86_400),
    "worker_memory_bytes": (2**26, 2**43),
    "runtime.threads": (1, 256),
}
_MOST_PRIORITIES: Final = 16
_MOST_LABELS: Final = 16
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
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
    _check_batching(spec)
    _check_priorities(spec)
    _check_labels(spec)
    return spec


def unheeded_under(policy: object) -> tuple[str, ...]:
    """The settings that mean nothing under a policy.

    >>> unheeded_under(BatchPolicy.TIMEOUT), unheeded_under("eager")
    (('min_batch',), ('max_wait_s', 'min_batch'))
    """
    if policy == BatchPolicy.HYBRID:
        return ()
    return ("max_wait_s", "min_batch") if policy in (BatchPolicy.EAGER, BatchPolicy.DEFERRED) else ("min_batch",)


def _check_batching(spec: DeploymentSpec) -> None:
    policy = spec.policy
    if spec.max_wait_s >= spec.deadline_s:
        raise _refused(
            "max_wait_s", spec.max_wait_s, f"lower it below deadline_s, which is {spec.deadline_s:g}, or raise that"
        )
    if spec.max_wait_s and "max_wait_s" in unheeded_under(policy):
        raise _refused(
            "max_wait_s", spec.max_wait_s, f"policy {policy} does not heed it; set policy timeout, hybrid or predictive"
        )
    if not spec.max_wait_s and policy in (BatchPolicy.TIMEOUT, BatchPolicy.HYBRID):
        raise _refused("max_wait_s", spec.max_wait_s, f"policy {policy} needs one, such as 0.005")
    if policy is BatchPolicy.DEFERRED and not spec.slo_s:
        raise _refused("slo_s", spec.slo_s, "policy deferred needs an objective, such as 0.1")
    if spec.min_batch > 1 and "min_batch" in unheeded_under(policy):
        raise _refused("min_batch", spec.min_batch, "only policy hybrid heeds it")
    if spec.min_batch > spec.max_batch:
        raise _refused("min_batch", spec.min_batch, f"lower it to max_batch, which is {spec.max_batch}, or raise that")


def _check_priorities(spec: DeploymentSpec) -> None:
    if len(spec.priorities) > _MOST_PRIORITIES:
        raise _refused("priorities", f"{len(spec.priorities)} levels", f"use at most {_MOST_PRIORITIES}")
    for level, queue in enumerate(spec.priorities, start=1):
        for name in ("max_queue", "max_age_s", "deadline_s"):
            value, (_, high) = getattr(queue, name), RANGES[name]
            if not 0 <= value <= high:
                raise _refused(
                    f"priorities[{level}].{name}", value, f"give a number to {high:g}; 0 takes the deployment's"
                )


def _check_labels(spec: DeploymentSpec) -> None:
    if len(spec.labels) > _MOST_LABELS or len(set(spec.labels)) != len(spec.labels):
        raise _refused("labels", list(spec.labels), f"use at most {_MOST_LABELS}, each once")
    for label in spec.labels:
        if label == "none":  # the command line's word for no label
            raise _refused("labels", label, "call it something else")
        if _LABEL.fullmatch(label) is None:
            remedy = "use 1-64 letters, digits, '.', '_', '-', beginning and ending with a letter or digit"
            raise _refused("labels", label, remedy)


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


def check_settings_of_version(spec: DeploymentSpec, manifest: VersionManifest) -> None:
    """Raise INVALID_SETTING for a setting that contradicts what the version declares."""
    check_settings_of_format(spec, manifest.format)
    if spec.cache_bytes and not manifest.is_repeatable:
        declares = f"is of kind {manifest.kind}" if manifest.idempotent else "declares that it is not idempotent"
        if manifest.streams:
            declares = "streams its answers"
        raise _refused(
            "cache_bytes",
            f"{spec.cache_bytes}, but {manifest.reference} {declares}",
            "set it to 0: a kept answer would take the place of what each request does",
        )
    each_bytes = sum(prod(map(abs, state.shape)) * DATATYPES[state.datatype].itemsize for state in manifest.states)
    if spec.max_sessions * each_bytes > spec.worker_memory_bytes:
        raise _refused(
            "max_sessions",
            f"{spec.max_sessions}, and each session of {manifest.reference} takes {each_bytes} bytes",
            f"use at most {spec.worker_memory_bytes // each_bytes}, or raise worker_memory_bytes",
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
