"""scipy and scikit-learn, imported when a statistic first needs them: a server never pays for that."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from salver.protocol.errors import SalverError

__all__ = ["scipy_special", "scipy_stats", "sklearn_metrics"]


def scipy_special() -> Any:
    """`scipy.special`: distribution functions and their inverses, quick to import."""
    return _library("scipy.special")


def scipy_stats() -> Any:
    """`scipy.stats`: tests and distributions, most of a second to import."""
    return _library("scipy.stats")


def sklearn_metrics() -> Any:
    """`sklearn.metrics`."""
    return _library("sklearn.metrics")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        package = "scikit-learn" if name.startswith("sklearn") else "scipy"
        raise SalverError(
            "UNSUPPORTED", f"this statistic needs {package}, which is not installed", "pip install 'salver[evaluation]'"
        ) from missing
