"""Jobs for operators: everybody's, listed, shown and cancelled, beside the server process that runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits, JobPage, JobState, JobView, parse_id, unknown_job, view_of
from salver.storage.home import Home
from salver.storage.job_ledger import JobWriter
from salver.storage.job_view import JobQuery, find_jobs, list_jobs
from salver.storage.owners import this_process

__all__ = ["JobDesk"]


class JobDesk:
    """The jobs of a home. Opens the store for each question: they are few. Blocks."""

    def __init__(self, home: Home, limits: JobLimits, clock: Clock) -> None:
        self._home = home
        self._limits = limits
        self._clock = clock

    @contextlib.contextmanager
    def _open(self) -> Iterator[JobWriter | None]:
        if not self._home.jobs_path.exists():
            yield None
            return
        writer = JobWriter(self._home.jobs_path, self._limits, self._clock, this_process())
        try:
            yield writer
        finally:
            writer.close()

    def page(self, endpoint: str | None, state: str | None, limit: int, after: str | None) -> JobPage:
        """Jobs, newest first; raises INVALID_PARAMETER for a state that is none."""
        states = {each.word: each for each in JobState}
        if state is not None and state not in states:
            raise SalverError("INVALID_PARAMETER", f"state is {state[:40]!r}", f"use {', '.join(states)}")
        query = JobQuery(None, endpoint, states[state] if state else None, limit, parse_id(after) if after else None)
        with self._open() as writer:
            if writer is None:
                return JobPage(())
            found = list_jobs(writer.store.connection, [query])[0]
            return JobPage(tuple(map(view_of, found.jobs)), found.next.hex() if found.next else None)

    def show(self, text: str) -> JobView:
        """One job; raises NOT_FOUND."""
        wanted = parse_id(text)
        with self._open() as writer:
            job = find_jobs(writer.store.connection, [wanted])[0] if writer else None
        if job is None:
            raise unknown_job(text)
        return view_of(job)

    def cancel(self, text: str) -> JobView:
        """End a job that has not ended; what it is now. A server process that runs it hears of it in a second."""
        wanted = parse_id(text)
        with self._open() as writer:
            job = writer.run([(type(writer.store).cancel, [wanted])])[0][0].job if writer else None
        if job is None:
            raise unknown_job(text)
        return view_of(job)
