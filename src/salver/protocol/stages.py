"""The stages of a version on its way to production and out of it; which moves there are: `salver.registry.stages`."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["NEAREST_FIRST", "OUT", "Stage"]


class Stage(enum.StrEnum):
    """Where a version stands."""

    DEVELOPMENT = "development"
    VALIDATION = "validation"
    STAGING = "staging"
    SHADOW = "shadow"
    PRODUCTION = "production"
    ARCHIVED = "archived"
    REJECTED = "rejected"


NEAREST_FIRST: Final = (
    Stage.PRODUCTION,
    Stage.SHADOW,
    Stage.STAGING,
    Stage.VALIDATION,
    Stage.DEVELOPMENT,
    Stage.REJECTED,
    Stage.ARCHIVED,
)
"""All of them, by how near they are to production."""
OUT: Final = frozenset({Stage.ARCHIVED, Stage.REJECTED})
"""Where versions are that may not serve."""
