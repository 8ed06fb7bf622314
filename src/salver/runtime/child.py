"""What a process that runs users' code is given by the one that starts it."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["child_environment"]

_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)
"""Environment that is inherited. Nothing else: the parent's environment may hold secrets."""


def child_environment(threads: int = 1) -> dict[str, str]:
    """The environment of a process that runs users' code with so many computing threads."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    settings = {"PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return kept | settings | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
