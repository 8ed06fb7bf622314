"""The queue against one that is too simple to be wrong, under any sequence of what may happen to it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.runtime.waiting import entry, leave

from salver.runtime.batch import Entry
from salver.runtime.queue import Bounds, WaitingQueue

LEVELS = 2


class PlainLevel:
    """A list in the order of arrival, and the rule of start-time fair queueing as it stands in the book."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.tags: dict[str, int] = {}
        self.virtual = 0

    def append(self, one: Entry) -> None:
        tenant = one.request.tenant
        if all(other.request.tenant != tenant for other in self.entries):
            self.tags[tenant] = max(self.tags.get(tenant, 0), self.virtual)
        self.entries.append(one)

    def firsts(self, class_key: object = None, *, of_all: bool = False) -> list[Entry]:
        """The first of each tenant, or of its requests of one class, in the order of tags."""
        found: dict[str, Entry] = {}
        for one in self.entries:
            if of_all or one.class_key == class_key:
                found.setdefault(one.request.tenant, one)
        return sorted(found.values(), key=lambda one: (self.tags[one.request.tenant], one.enqueued_s))

    def head(self) -> Entry | None:
        for tenant, class_key in {(one.request.tenant, one.class_key) for one in self.entries}:
            for one in [o for o in self.entries if (o.request.tenant, o.class_key) == (tenant, class_key)]:
                if not one.answer.done():
                    break
                self.entries.remove(one)
        if not self.entries:
            self.tags, self.virtual = {}, 0
            return None
        return self.firsts(of_all=True)[0]

    def serve(self, one: Entry) -> None:
        self.entries.remove(one)
        self.virtual = max(self.virtual, self.tags[one.request.tenant])
        self.tags[one.request.tenant] += one.cost


class QueueAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = WaitingQueue(LEVELS)
        self.levels = [PlainLevel() for _ in range(LEVELS)]
        self.now = 0.0
        self.ended: list[Entry] = []

    def waiting(self) -> list[Entry]:
        return [one for level in self.levels for one in level.entries]

    @rule(
        level=st.integers(0, LEVELS - 1),
        several=st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from("xxxy"), st.integers(1, 4), st.integers(1, 6)),
            min_size=1,
            max_size=9,
        ),
    )
    def append(self, level: int, several: list[tuple[str, str, int, int]]) -> None:
        for tenant, shape, rows, cost in several:
            self.now += 1.0
            one = entry(rows, cost=cost, at_s=self.now, shape=shape, tenant=tenant, level=level)
            self.queue.append(one)
            self.levels[level].append(one)

    @rule(rows=st.integers(1, 12), cost=st.sampled_from([0, 0, 3, 10, 20]))
    def take(self, rows: int, cost: int) -> None:
        taken = self.queue.take(Bounds(rows, cost))
        assert taken == self._expected(rows, cost)
        assert len({one.class_key for one in taken}) <= 1
        assert not any(one.answer.done() for one in taken)
        if len(taken) > 1:
            assert sum(one.request.rows for one in taken) <= rows
            assert not cost or sum(one.cost for one in taken) <= cost
        self.ended += taken

    def _expected(self, rows: int, cost: int) -> list[Entry]:
        taken: list[Entry] = []
        class_key: object = None
        for level in self.levels:
            if not taken:
                head = level.head()
                if head is None:
                    continue
                class_key = head.class_key
            while firsts := level.firsts(class_key):
                one = firsts[0]
                if one.answer.done():
                    level.entries.remove(one)
                    continue
                over = sum(o.request.rows for o in (*taken, one)) > rows
                if taken and (over or (cost and sum(o.cost for o in (*taken, one)) > cost)):
                    return taken
                taken.append(one)
                level.serve(one)
        return taken

    @rule()
    def take_one(self) -> None:
        expected: list[Entry] = []
        for level in self.levels:
            head = level.head()
            if head is not None:
                level.serve(head)
                expected = [head]
                break
        assert self.queue.take_one() == expected
        self.ended += expected

    @rule(tenant=st.sampled_from("abcd"), level=st.integers(0, LEVELS - 1), cost=st.integers(1, 6))
    def push_out(self, tenant: str, level: int, cost: int) -> None:
        own = self.levels[level]
        queued = {name: sum(o.cost for o in own.entries if o.request.tenant == name) for name in "abcd"}
        pushed = self.queue.push_out(level, tenant, cost)
        most = max(queued.values())
        if pushed is None:
            assert queued[tenant] + cost >= most
            return
        heaviest = pushed.request.tenant
        assert queued[heaviest] == most > queued[tenant] + cost
        assert pushed is [o for o in own.entries if o.request.tenant == heaviest][-1]
        own.entries.remove(pushed)
        self.ended.append(pushed)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        for one in data.draw(st.lists(st.sampled_from(self.waiting()), min_size=1, max_size=4)):
            leave(one)

    @rule()
    def drop_done(self) -> None:
        self.queue.drop_done()
        for level in self.levels:
            level.entries = [one for one in level.entries if not one.answer.done()]

    @rule()
    def gathering(self) -> None:
        found = self.queue.gathering()
        head = next((head for level in self.levels if (head := level.head()) is not None), None)
        assert (found is None) == (head is None)
        if found is not None:
            assert found.oldest_s <= head.enqueued_s

    @precondition(lambda self: len(self.waiting()) > 30)
    @rule()
    def clear(self) -> None:
        cleared = self.queue.clear()
        assert sorted(map(id, cleared)) == sorted(map(id, self.waiting()))
        self.levels = [PlainLevel() for _ in range(LEVELS)]

    @invariant()
    def nothing_is_lost_or_there_twice(self) -> None:
        there = list(self.queue)
        assert sorted(map(id, there)) == sorted(map(id, self.waiting()))
        assert not {id(one) for one in there} & {id(one) for one in self.ended}
        assert len(self.queue) == len(there)
        for number, level in enumerate(self.levels):
            assert self.queue.waiting(number) == len(level.entries)
        assert self.queue.cost_until(LEVELS - 1) == sum(one.cost for one in there)


TestQueueAndModel = QueueAndModel.TestCase
TestQueueAndModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
