"""The job store of a home as an event loop sees it: futures, answered when what was asked for is durable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.jobs import Job, JobLimits, JobState, NewJob
from salver.storage import job_view
from salver.storage.commits import Commits
from salver.storage.job_file import open_jobs, refusals_of, transaction
from salver.storage.job_steps import Accepted, Cancelled, Claimed, DeliveryTry, Outcome, Tended, Wanted
from salver.storage.job_view import Backlog, JobList, JobQuery, Result
from salver.storage.jobs import JobStore

__all__ = ["JobLedger", "JobWriter"]

Steps = Sequence[tuple[Callable[..., Sequence[Any]], Sequence[Any]]]


class JobLedger:
    """The jobs in the file at `path`, which is made by the first that is accepted. Lives on the event loop.

    Every future may raise STORAGE_FULL, CONFLICT or CORRUPT_ARTIFACT: then nothing has happened,
    and asking again is right. Writing and reading have a thread each and do not wait for each
    other. REQUIRES that `exists` for everything but `accept`.
    """

    def __init__(self, path: Path, limits: JobLimits, clock: Clock, owner: str) -> None:
        self._path = path
        self._exists = False
        self._writes = Commits(lambda: JobWriter(path, limits, clock, owner), "job writes")
        self._reads = Commits(lambda: _Reader(path), "job reads")

    @property
    def exists(self) -> bool:
        """Whether there have ever been jobs: costs one stat(2) until there have."""
        self._exists = self._exists or self._path.exists()
        return self._exists

    def accept(self, job: NewJob) -> asyncio.Future[Accepted]:
        """Take a job in; see `JobStore.accept`."""
        return self._writes.ask(JobStore.accept, job)  # type: ignore[no-any-return]

    def claim(self, wanted: Wanted) -> asyncio.Future[list[Claimed]]:
        """Jobs to run now; see `JobStore.claim`."""
        return self._writes.ask(JobStore.claim, wanted)  # type: ignore[no-any-return]

    def settle(self, outcome: Outcome) -> asyncio.Future[JobState | None]:
        """Record what became of an attempt; see `JobStore.settle`."""
        return self._writes.ask(JobStore.settle, outcome)  # type: ignore[no-any-return]

    def cancel(self, id: bytes) -> asyncio.Future[Cancelled]:
        """End a job that has not ended; see `JobStore.cancel`."""
        return self._writes.ask(JobStore.cancel, id)  # type: ignore[no-any-return]

    def tend(self, held: Collection[int]) -> asyncio.Future[Tended]:
        """Go on holding what runs here and do what is due with time; see `JobStore.tend`."""
        return self._writes.ask(JobStore.tend, held)  # type: ignore[no-any-return]

    def find(self, id: bytes) -> asyncio.Future[Job | None]:
        """The job with this id."""
        return self._reads.ask(job_view.find_jobs, id)  # type: ignore[no-any-return]

    def result(self, id: bytes) -> asyncio.Future[Result | None]:
        """The result of the job with this id."""
        return self._reads.ask(job_view.results, id)  # type: ignore[no-any-return]

    def page(self, query: JobQuery) -> asyncio.Future[JobList]:
        """Jobs by query."""
        return self._reads.ask(job_view.list_jobs, query)  # type: ignore[no-any-return]

    def backlogs(self) -> asyncio.Future[list[Backlog]]:
        """What has not ended yet, by endpoint."""
        return self._reads.ask(job_view.backlogs, None)  # type: ignore[no-any-return]

    def delivery_counts(self) -> asyncio.Future[dict[tuple[str, str], int]]:
        """How many tries of each webhook had which outcome."""
        return self._reads.ask(job_view.delivery_counts, None)  # type: ignore[no-any-return]

    def due_deliveries(self, now_s: float, most: int) -> asyncio.Future[list[Job]]:
        """Jobs whose webhook is to be told now, so many of each webhook at most."""
        return self._reads.ask(job_view.due_deliveries, (now_s, most))  # type: ignore[no-any-return]

    def record_delivery(self, tried: DeliveryTry) -> asyncio.Future[bool]:
        """Record one try of a webhook."""
        return self._writes.ask(JobStore.record_deliveries, tried)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Carry out what was asked for and close the file."""
        await self._writes.close()
        await self._reads.close()


class JobWriter:
    """The store open for writing: `run` is one transaction. Not for two threads at once."""

    def __init__(self, path: Path, limits: JobLimits, clock: Clock, owner: str) -> None:
        self._file = _File(path)
        self.store = JobStore(self._file.connection, limits, clock, owner)

    def run(self, steps: Steps) -> list[Sequence[Any]]:
        """See `Grouped`. Raises CONFLICT, once, when the file is not the one that was opened any more."""
        self._file.require_in_place()
        with refusals_of(), transaction(self._file.connection):
            return [step(self.store, values) for step, values in steps]

    def close(self) -> None:
        """See `Grouped`."""
        self._file.connection.close()


class _Reader:
    def __init__(self, path: Path) -> None:
        self._file = _File(path)

    def run(self, steps: Steps) -> list[Sequence[Any]]:
        self._file.require_in_place()
        with refusals_of():
            self._file.connection.execute("BEGIN")
            try:
                return [step(self._file.connection, values) for step, values in steps]
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._file.connection.execute("ROLLBACK")

    def close(self) -> None:
        self._file.connection.close()


class _File:
    """An open store, which somebody may put another in the place of: then what is written here would be lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connection = open_jobs(path)
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - one call for each commit
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def require_in_place(self) -> None:
        """Raise unless the file that was opened is still the one in the home."""
        if self._look() != self._identity:
            raise SalverError("CONFLICT", "the job store was replaced by another file", "repeat: the new one is opened")
