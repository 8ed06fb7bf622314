"""Group commit: what is asked for together is done together, and everybody hears of it."""

import asyncio
import threading

import pytest

from salver.protocol.errors import SalverError
from salver.storage.commits import Commits


class Slate:
    """Steps on a list; a run may be held up, and may fail."""

    def __init__(self):
        self.runs = []
        self.opened = self.closed = 0
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()
        self.problem = None

    def open(self):
        self.opened += 1
        return self

    def run(self, steps):
        self.entered.set()
        assert self.free.wait(30)
        self.runs.append([(step.__name__, list(values)) for step, values in steps])
        if self.problem is not None:
            raise self.problem
        return [step(self, values) for step, values in steps]

    def close(self):
        self.closed += 1


def double(_, values):
    return [2 * value if value >= 0 else SalverError("CONFLICT", "negative") for value in values]


def negate(_, values):
    return [-value for value in values]


def on_a_loop(test):
    async def run():
        slate = Slate()
        commits = Commits(slate.open, "test commits")
        try:
            await asyncio.wait_for(test(slate, commits), 30)
        finally:
            slate.free.set()
            await commits.close()

    asyncio.run(run())


def test_what_comes_in_one_turn_of_the_loop_is_one_run():
    async def test(slate, commits):
        answers = [commits.ask(double, 1), commits.ask(negate, 5), commits.ask(double, 2)]
        assert await asyncio.gather(*answers) == [2, -5, 4]
        assert slate.runs == [[("double", [1, 2]), ("negate", [5])]]

    on_a_loop(test)


def test_what_comes_during_a_run_is_the_next_one():
    async def test(slate, commits):
        slate.free.clear()
        first = commits.ask(double, 1)
        await asyncio.to_thread(slate.entered.wait, 30)
        others = [commits.ask(double, value) for value in range(100)]
        slate.free.set()
        assert await first == 2
        assert await asyncio.gather(*others) == [2 * value for value in range(100)]
        assert [len(run[0][1]) for run in slate.runs] == [1, 100]

    on_a_loop(test)


def test_one_run_takes_no_more_than_so_many_and_the_next_takes_the_rest(monkeypatch):
    monkeypatch.setattr("salver.storage.commits._MOST", 3)

    async def test(slate, commits):
        answers = [commits.ask(double, value) for value in range(10)]
        assert await asyncio.gather(*answers) == [2 * value for value in range(10)]
        assert [len(run[0][1]) for run in slate.runs] == [3, 3, 3, 1]

    on_a_loop(test)


def test_a_refusal_is_of_one_request():
    async def test(_, commits):
        answers = await asyncio.gather(commits.ask(double, -1), commits.ask(double, 1), return_exceptions=True)
        assert answers[0].code == "CONFLICT"
        assert answers[1] == 2

    on_a_loop(test)


def test_a_run_that_fails_fails_for_all_and_the_next_opens_anew():
    async def test(slate, commits):
        slate.problem = SalverError("STORAGE_FULL", "full")
        answers = await asyncio.gather(commits.ask(double, 1), commits.ask(negate, 1), return_exceptions=True)
        assert [answer.code for answer in answers] == ["STORAGE_FULL"] * 2
        slate.problem = None
        assert await commits.ask(double, 3) == 6
        assert (slate.opened, slate.closed) == (2, 1)

    on_a_loop(test)


def test_who_has_gone_does_not_disturb_the_others():
    async def test(slate, commits):
        slate.free.clear()
        gone, there = commits.ask(double, 1), commits.ask(double, 2)
        gone.cancel()
        slate.free.set()
        assert await there == 4

    on_a_loop(test)


def test_nothing_is_opened_for_nobody():
    async def test(slate, _):
        assert slate.opened == 0
        assert "test commits" not in {thread.name for thread in threading.enumerate()}

    on_a_loop(test)


def test_closing_carries_out_what_was_asked_for():
    async def run():
        slate = Slate()
        commits = Commits(slate.open, "test commits")
        answers = [commits.ask(double, value) for value in range(3)]
        await commits.close()
        assert await asyncio.gather(*answers) == [0, 2, 4]
        assert slate.closed == 1

    asyncio.run(run())


def test_what_is_asked_after_the_end_is_refused_and_leaves_nobody_waiting():
    async def run():
        commits = Commits(Slate().open, "test commits")
        assert await commits.ask(double, 1) == 2
        await commits.close()
        with pytest.raises(SalverError) as raised:
            commits.ask(double, 1)
        assert raised.value.code == "NOT_READY"

    asyncio.run(run())


@pytest.mark.parametrize("turns", [50])
def test_nobody_is_left_waiting_when_the_thread_falls_asleep(turns):
    async def test(_, commits):
        for turn in range(turns):
            assert await commits.ask(double, turn) == 2 * turn
            await asyncio.sleep(0)

    on_a_loop(test)
