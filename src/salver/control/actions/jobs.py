"""Everybody's jobs, for operators."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from salver.control.action import Action
from salver.protocol.jobs import JobPage, JobView
from salver.security.access import Operation

__all__ = ["ACTIONS", "CANCEL_JOB", "JOB", "JOBS", "JobsAsked", "OfJob"]


class JobsAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs to list, the newest first."""

    endpoint: str | None = None
    state: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    after: str | None = None
    """The id behind which the page begins."""


class OfJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one job, by its id."""

    job: str


JOBS: Final = Action(
    "GET",
    "/v1/jobs",
    Operation.OPERATE,
    "Everybody's jobs, newest first",
    JobsAsked,
    JobPage,
    lambda admin, asked: admin.job_desk.page(asked.endpoint, asked.state, asked.limit, asked.after),
)
JOB: Final = Action(
    "GET",
    "/v1/jobs/{job}",
    Operation.OPERATE,
    "What a job is doing",
    OfJob,
    JobView,
    lambda admin, asked: admin.job_desk.show(asked.job),
)
CANCEL_JOB: Final = Action(
    "DELETE",
    "/v1/jobs/{job}",
    Operation.OPERATE,
    "End a job that has not ended",
    OfJob,
    JobView,
    lambda admin, asked: admin.job_desk.cancel(asked.job),
)
ACTIONS: Final = (JOBS, JOB, CANCEL_JOB)
