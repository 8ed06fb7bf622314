"""The stages of a version on its way to production and out of it; which moves there are: `salver.registry.stages`."""

from __future__ import annotations

import enum

__all__ = ["Stage"]


class Stage(enum.StrEnum):
    """Where a version stands."""

    DEVELOPMENT = "development"
    VALIDATION = "validation"
    STAGING = "staging"
    SHADOW = "shadow"
    PRODUCTION = "production"
    ARCHIVED = "archived"
    REJECTED = "rejected"
