"""Versions that have failed: what the newest evaluation of a suite says of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from salver.protocol.nearest import listed
from salver.protocol.verdict import Verdict
from salver.storage.registry_schema import evaluations

__all__ = ["failed_suites", "told"]


def failed_suites(connection: Connection, model: str | None = None) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """By model and version the suites whose newest evaluation of it failed; of all models, or of one."""
    of = (evaluations.c.model, evaluations.c.version, evaluations.c.suite)
    newest = select(func.max(evaluations.c.seq)).group_by(*of)
    if model is not None:
        newest = newest.where(evaluations.c.model == model)
    query = select(*of).where(evaluations.c.seq.in_(newest), evaluations.c.verdict == Verdict.FAILED.value)
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name, version, suite in connection.execute(query.order_by(*of)):
        found[name, version].append(suite)
    return {each: tuple(suites) for each, suites in found.items()}


def told(suites: tuple[str, ...]) -> str:
    """That in words.

    >>> told(("release",))
    'its newest evaluation of release failed'
    """
    return f"its newest evaluation of {listed(suites)} failed"
