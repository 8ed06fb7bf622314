"""The sections of a suite that ask whether a version can take its place in service.

What it must still get right, what its clients rely on, whether it says online what it said in training, whether the
data is such as it was trained on, and whether it starts and runs in a clean worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from salver.evaluation.suites.limits import bounds, given_bounds

__all__ = [
    "CasesSettings",
    "ContractSettings",
    "DataSettings",
    "InfrastructureSettings",
    "SkewSettings",
    "beside",
    "service_problems",
]

_ANY: Final = float("inf")
Whole = TypeVar("Whole", bound=msgspec.Struct)
_FILES: Final = (("skew", "script"), ("data", "reference"), ("data", "schema"))


class CasesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[cases]`: the model's regression cases, which are asked also where a suite has no such section."""

    enabled: bool = True
    leave_out: tuple[str, ...] = ()
    """Ids of cases that this suite does not ask; they are named in the result."""
    required: int = 0
    """Cases there must be; with fewer it is inconclusive."""


class ContractSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[contract]]`: requests that clients sent, and answers that they rely on."""

    traffic: str
    """A file of `salver record`, beside the suite."""
    name: str = "contract"
    labels_agree_at_least: float = 0.95
    """Share of the rows whose label is the same as it was."""
    tolerance: float | None = None
    """By how much a number may differ from the one recorded; empty: differences are only reported."""
    within_at_least: float = 1.0
    """Share of the numbers that must be within `tolerance`."""
    exchanges_at_least: int = 10
    """With fewer recorded exchanges it is inconclusive."""


class SkewSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[skew]`: the same rows in a batch by the library itself, and online by a server."""

    paths: tuple[Literal["json", "binary", "grpc"], ...] = ("json", "binary", "grpc")
    rows: int = 200
    """Rows compared, of which the first `singles` also go one by one."""
    singles: int = 32
    absolute: float = 1e-5
    """By how much a number may differ, besides `relative` of its size."""
    relative: float = 1e-4
    outputs: dict[str, float] = {}
    """Bounds of single outputs, in place of `absolute`."""
    outside_at_most: float = 0.0
    """Share of the rows that may differ by more, or in their label."""
    script: str = ""
    """A Python file beside the suite with `predict(columns, artifact)`: the batch path that training used."""


class DataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[data]`: whether the rows are such as the version was trained on."""

    reference: str = ""
    """Rows to compare with: a table beside the suite; empty: the other side of the split, where there is one."""
    schema: str = ""
    """A pandera schema beside the suite: YAML or JSON, or a Python file that defines SCHEMA."""
    outside_at_most: float = 0.05
    """Share of the values of a feature that may lie outside the range of the training rows."""
    missing_at_most: float = 0.05
    """By how much the share of missing values may exceed that of the training rows."""
    shift_at_most: float = 0.5
    """By how much a mean may move, in standard deviations of the training rows."""
    psi_at_most: float = 0.1
    """Population stability index that matters; one that no drift stays below is never held against the data."""
    unseen_at_most: float = 0.01
    """Share of the values of a category that the reference does not have."""
    level: float = 0.01
    """Probability of reporting any drift where there is none."""
    min_rows: int = 50
    """With fewer rows on either side, distributions are not compared."""


class InfrastructureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[infrastructure]`: a clean worker with the memory that is declared, and nothing else."""

    memory_bytes: int = 4 * 2**30
    """`worker_memory_bytes` of the deployment to come."""
    cold_start_at_most_s: float | None = None
    """From nothing to the first answer."""
    network: bool = False
    """Whether it may use the network."""
    rows: int = 20
    """That it answers, one by one; the answers must be those of the evaluation."""


def beside(suite: Whole, directory: Path) -> Whole:
    """The suite with the files that these sections name found in a directory."""
    whole: Any = suite
    changed: dict[str, Any] = {}
    for name, field in _FILES:
        section = changed.get(name, getattr(whole, name))
        if section is not None and getattr(section, field):
            changed[name] = msgspec.structs.replace(section, **{field: str(directory / getattr(section, field))})
    contracts = [msgspec.structs.replace(each, traffic=str(directory / each.traffic)) for each in whole.contract]
    return msgspec.structs.replace(suite, contract=tuple(contracts), **changed)


def service_problems(suite: Any) -> Iterable[str]:
    """What is wrong with these sections of a suite."""
    for contract in suite.contract:
        name = f"contract {contract.name}"
        yield from bounds(f"{name}: labels_agree_at_least", contract.labels_agree_at_least, 0.0, 1.0)
        yield from bounds(f"{name}: within_at_least", contract.within_at_least, 0.0, 1.0)
        yield from given_bounds(f"{name}: tolerance", contract.tolerance, 0.0, _ANY)
        yield from bounds(f"{name}: exchanges_at_least", contract.exchanges_at_least, 1, 10**6)
    if suite.cases is not None:
        yield from bounds("cases.required", suite.cases.required, 0, 10**6)
    if suite.skew is not None:
        yield from _of_skew(suite.skew)
    if suite.data is not None:
        yield from _of_data(suite.data)
    if suite.infrastructure is not None:
        found = suite.infrastructure
        yield from bounds("infrastructure.memory_bytes", found.memory_bytes, 2**26, 2**43)
        yield from bounds("infrastructure.rows", found.rows, 1, 10_000)
        yield from given_bounds("infrastructure.cold_start_at_most_s", found.cold_start_at_most_s, 0.0, 3600.0)


def _of_skew(skew: SkewSettings) -> Iterable[str]:
    if not skew.paths:
        yield "skew.paths is empty"
    yield from bounds("skew.rows", skew.rows, 1, 100_000)
    yield from bounds("skew.singles", skew.singles, 0, 10_000)
    for name in ("absolute", "relative"):
        yield from bounds(f"skew.{name}", getattr(skew, name), 0.0, _ANY)
    for name, bound in skew.outputs.items():
        yield from bounds(f"skew.outputs.{name}", bound, 0.0, _ANY)
    yield from bounds("skew.outside_at_most", skew.outside_at_most, 0.0, 1.0)


def _of_data(data: DataSettings) -> Iterable[str]:
    for name in ("outside_at_most", "missing_at_most", "unseen_at_most"):
        yield from bounds(f"data.{name}", getattr(data, name), 0.0, 1.0)
    yield from bounds("data.shift_at_most", data.shift_at_most, 0.0, _ANY)
    yield from bounds("data.psi_at_most", data.psi_at_most, 0.0, _ANY)
    yield from bounds("data.level", data.level, 1e-6, 0.5)
    yield from bounds("data.min_rows", data.min_rows, 2, 10**9)
