"""Job stores for tests: open, on a clock that tests turn."""

import itertools

import msgspec

from salver.protocol.jobs import JobLimits, NewJob
from salver.storage.job_file import open_jobs, refusals_of, transaction
from salver.storage.job_steps import Claimed, Wanted
from salver.storage.job_view import JobQuery, Result, find_jobs, list_jobs, results
from salver.storage.jobs import JobStore

_numbers = itertools.count(1)


def make_new(**changes):
    number = next(_numbers)
    job = NewJob(number.to_bytes(16), "acme", "digits", "", {"content-type": "application/json"}, b"body %d" % number)
    return msgspec.structs.replace(job, **changes)


class Bench:
    """One process's store: each step in a transaction of its own."""

    def __init__(self, path, clock, owner="me", alive=(), **limits):
        self.clock = clock
        self.alive = set(alive)
        self.connection = open_jobs(path)
        self.connection.execute("PRAGMA synchronous = OFF")  # what is on disk is asked elsewhere
        self.store = JobStore(
            self.connection, JobLimits(**limits), clock, owner, is_alive=lambda owner: owner in self.alive
        )

    def step(self, name, *values):
        with refusals_of(), transaction(self.connection):
            return getattr(self.store, name)(list(values))

    def accept(self, **changes):
        (answer,) = self.step("accept", make_new(**changes))
        return answer

    def claim(self, slots=100, bytes=10**9, endpoint="digits") -> list[Claimed]:
        (jobs,) = self.step("claim", Wanted({endpoint: slots}, bytes))
        return jobs

    def settle(self, *outcomes):
        return self.step("settle", *outcomes)

    def cancel(self, id):
        (cancelled,) = self.step("cancel", id)
        return cancelled.job

    def tend(self, *held):
        (tended,) = self.step("tend", held)
        return tended

    def find(self, id):
        (job,) = find_jobs(self.connection, [id])
        return job

    def result(self, id) -> Result | None:
        (found,) = results(self.connection, [id])
        return found

    def list(self, tenant=None, **query):
        (page,) = list_jobs(self.connection, [JobQuery(tenant, **query)])
        return page

    def count(self, table):
        return self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
