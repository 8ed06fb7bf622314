"""What waits for a version, in the order in which it will run. Knows no loop, no clock, no policy.

Three rules, one inside the other. A more urgent priority level goes first. Within a level tenants
share the model: each is served as if it had an equal part of it, however much it sends, by start-time
fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996: a tenant's tag is the virtual time at which its next
request would begin, and the smallest tag goes next). Only what is taken moves a tag, so that requests
whose callers have left cost their tenant nothing. Within a tenant the first come goes first. A batch
holds requests of one class - those that can be joined, see `Entry.class_key` - so that each class has
a line of its own.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from salver.runtime.batch import Entry

__all__ = ["Bounds", "Gathering", "WaitingQueue"]

_REMEMBERED_TENANTS: Final = 256
"""Tenants whose share is remembered at most although nothing of theirs waits."""


class Bounds(NamedTuple):
    """What one batch may hold: rows, and cost where that is bounded (0 is not)."""

    rows: int
    cost: int = 0


class Gathering(NamedTuple):
    """The class of requests that runs next, as far as it has gathered."""

    rows: int
    cost: int
    oldest_s: float
    """When the one that waits longest came."""
    due_s: float
    """The earliest time by which one of them must be answered."""


class _Level:
    """One priority level: the shares of its tenants. `virtual` is the tag last served, `waiting` counts requests."""

    __slots__ = ("_most", "shares", "virtual", "waiting")

    def __init__(self) -> None:
        self.shares: dict[str, _Share] = {}
        self.virtual = 0
        self.waiting = 0
        self._most = _REMEMBERED_TENANTS

    def append(self, entry: Entry) -> None:
        """Take an entry in, behind those of its tenant."""
        tenant, virtual = entry.request.tenant, self.virtual
        share = self.shares.get(tenant)
        if share is None:
            if len(self.shares) >= self._most:
                self._forget_tenants()
            self.shares[tenant] = share = _Share(self, virtual)
        elif not share.waiting and share.tag < virtual:
            share.tag = virtual
        self.waiting += 1
        share.waiting += 1
        share.cost += entry.cost
        line = share.lines.get(entry.class_key)
        if line is None:
            share.lines[entry.class_key] = deque((entry,))
        else:
            line.append(entry)

    def _forget_tenants(self) -> None:
        """Forget tenants of whom nothing waits: those that are owed as much as anybody new, or if need be, all."""
        waiting = {name: share for name, share in self.shares.items() if share.waiting}
        ahead = {name: share for name, share in self.shares.items() if not share.waiting and share.tag > self.virtual}
        self.shares = waiting | (ahead if len(ahead) < _REMEMBERED_TENANTS else {})
        # Not again before as many new ones have come.
        self._most = len(self.shares) + _REMEMBERED_TENANTS

    def head(self) -> Entry | None:
        """Who goes next; None when nobody waits, and then all tenants are equal again."""
        found: Entry | None = None
        least = (0, 0.0)
        for share in self.shares.values():
            head = share.head()
            if head is not None and (found is None or (share.tag, head.enqueued_s) < least):
                found, least = head, (share.tag, head.enqueued_s)
        if found is None:
            self._begin_anew()
        return found

    def _begin_anew(self) -> None:
        self.virtual = 0
        if len(self.shares) == 1:
            # The usual one, kept with its lines.
            for share in self.shares.values():
                share.tag = 0
        else:
            self.shares.clear()
            self._most = _REMEMBERED_TENANTS

    def alike(self, class_key: object) -> list[_Share]:
        """The tenants of whom requests of a class wait."""
        return [share for share in self.shares.values() if share.lines.get(class_key)]

    def fill(self, batch: _Filling, class_key: object) -> None:
        """Give a batch as much of a class as fits, by the tenants' tags."""
        alike = self.alike(class_key)
        if len(alike) == 1:
            self._fill_from(alike[0], batch, class_key)
        elif alike:
            self._fill_fairly(alike, batch, class_key)

    def _fill_from(self, share: _Share, batch: _Filling, class_key: object) -> None:
        before, before_cost = len(batch.entries), batch.cost
        batch.fill(share, share.lines[class_key])
        taken = len(batch.entries) - before
        if taken:
            self._served(share, taken, batch.cost - before_cost, batch.entries[-1].cost)

    def _fill_fairly(self, shares: list[_Share], batch: _Filling, class_key: object) -> None:
        lines = [share.lines[class_key] for share in shares]
        heap = [(share.tag, line[0].enqueued_s, at) for at, (share, line) in enumerate(zip(shares, lines, strict=True))]
        heapq.heapify(heap)
        while heap:
            at = heap[0][2]
            share, line = shares[at], lines[at]
            entry = line[0]
            if entry.answer.done():
                share.departed(entry)
            elif batch.add(entry):
                self._served(share, 1, entry.cost, entry.cost)
            else:
                return
            line.popleft()
            if line:
                heapq.heapreplace(heap, (share.tag, line[0].enqueued_s, at))
            else:
                heapq.heappop(heap)

    def _served(self, share: _Share, number: int, cost: int, last_cost: int) -> None:
        """`number` requests of a tenant have been taken to run, at `cost` in all."""
        began = share.tag + cost - last_cost
        self.virtual = max(self.virtual, began)
        share.tag += cost
        share.cost -= cost
        share.waiting -= number
        self.waiting -= number

    def take_one(self, entry: Entry) -> None:
        """Take the head, which `entry` is, alone."""
        share = self.shares[entry.request.tenant]
        share.lines[entry.class_key].popleft()
        self._served(share, 1, entry.cost, entry.cost)

    def cost_ahead(self, tenant: str) -> float:
        """The cost of what would be served before a newcomer: its tenant's own, and what others have until then."""
        own = self.shares.get(tenant)
        if own is not None and len(self.shares) == 1:
            return own.cost
        until = self.virtual if own is None else max(own.tag, self.virtual) + own.cost
        cost = 0.0
        for share in self.shares.values():
            if share.waiting and share.tag <= until:
                # One more than fits in, because who began to wait earlier goes first among equals.
                cost += min(share.cost, until - share.tag + share.cost / share.waiting)
        return cost

    def push_out(self, tenant: str, cost: int) -> Entry | None:
        """See `WaitingQueue.push_out`."""
        own = self.shares.get(tenant)
        heaviest = max(self.shares.values(), key=lambda share: share.cost, default=None)
        if heaviest is None or heaviest is own or heaviest.cost <= (own.cost if own else 0) + cost:
            return None
        line = max(filter(None, heaviest.lines.values()), key=lambda line: line[-1].enqueued_s)
        entry = line.pop()
        heaviest.departed(entry)
        return entry


class _Share:
    """One tenant on one level: `waiting` requests at `cost`, in a line for each class, first come first in each.

    `tag` is the virtual time at which the next of them would begin.
    """

    __slots__ = ("_level", "cost", "lines", "tag", "waiting")

    def __init__(self, level: _Level, tag: int) -> None:
        self._level = level
        self.tag = tag
        self.cost = 0
        self.waiting = 0
        self.lines: dict[object, deque[Entry]] = {}

    def head(self) -> Entry | None:
        """The first to come of those that wait; forgets departed heads and empty lines on the way."""
        found: Entry | None = None
        for key, line in list(self.lines.items()):
            while line and line[0].answer.done():
                self.departed(line.popleft())
            if not line:
                del self.lines[key]
            elif found is None or line[0].enqueued_s < found.enqueued_s:
                found = line[0]
        return found

    def departed(self, entry: Entry) -> None:
        """`entry` waits no more, and nothing runs for it."""
        self.waiting -= 1
        self.cost -= entry.cost
        self._level.waiting -= 1

    def drop_done(self) -> None:
        """Forget those whose caller has been answered or has gone."""
        for key, line in list(self.lines.items()):
            left = [entry for entry in line if entry.answer.done()]
            if left:
                self.lines[key] = deque([entry for entry in line if not entry.answer.done()])
            for entry in left:
                self.departed(entry)


class WaitingQueue:
    """The requests that wait, over `levels` priority levels, 0 the most urgent.

    `length` counts requests that have left or were answered, too, until `drop_done` or their turn.
    """

    __slots__ = ("_levels",)

    def __init__(self, levels: int = 1) -> None:
        self._levels = [_Level() for _ in range(levels)]

    def __len__(self) -> int:
        return sum([level.waiting for level in self._levels])

    def __iter__(self) -> Iterator[Entry]:
        for level in self._levels:
            for share in level.shares.values():
                for line in share.lines.values():
                    yield from line

    def waiting(self, level: int) -> int:
        """Requests that wait on one level."""
        return self._levels[level].waiting

    def offer(self, entry: Entry, most: int) -> bool:
        """Take an entry in unless `most` wait on its level; whether it was taken."""
        level = self._levels[entry.level]
        if level.waiting >= most:
            return False
        level.append(entry)
        return True

    def append(self, entry: Entry) -> None:
        """Take an entry in, behind those of its tenant and level."""
        self._levels[entry.level].append(entry)

    def cost_ahead(self, level: int, tenant: str) -> float:
        """The cost of what would run before a newcomer: all of more urgent levels, and each tenant's fair part."""
        return self.cost_until(level - 1) + self._levels[level].cost_ahead(tenant)

    def cost_until(self, level: int) -> int:
        """The cost of all that waits on a level and on more urgent ones."""
        return sum([share.cost for each in self._levels[: level + 1] for share in each.shares.values()])

    def oldest_s(self, level: int) -> float | None:
        """When the request that waits longest on a level came; None when nobody waits."""
        heads = [share.head() for share in self._levels[level].shares.values()]
        return min([head.enqueued_s for head in heads if head is not None], default=None)

    # Taking.

    def _next(self) -> tuple[int, Entry] | None:
        for index, level in enumerate(self._levels):
            if level.shares:
                head = level.head()
                if head is not None:
                    return index, head
        return None

    def gathering(self) -> Gathering | None:
        """What the next batch could hold now, those that have left included; None when nobody waits."""
        found = self._next()
        if found is None:
            return None
        index, head = found
        key = head.class_key
        alike = [entry for level in self._levels[index:] for share in level.alike(key) for entry in share.lines[key]]
        return Gathering(
            sum([entry.request.rows for entry in alike]),
            sum([entry.cost for entry in alike]),
            min([entry.enqueued_s for entry in alike]),
            min([entry.due_s for entry in alike]),
        )

    def take(self, bounds: Bounds) -> list[Entry]:
        """The next batch, in order: the head of the queue and what can be joined with it, within `bounds`.

        A request that alone exceeds them runs alone. Less urgent levels fill what more urgent ones leave.
        """
        found = self._next()
        if found is None:
            return []
        index, head = found
        batch = _Filling(bounds)
        for level in self._levels[index:]:
            level.fill(batch, head.class_key)
            if batch.full:
                break
        return batch.entries

    def take_one(self) -> list[Entry]:
        """The head of the queue alone."""
        found = self._next()
        if found is None:
            return []
        index, head = found
        self._levels[index].take_one(head)
        return [head]

    # Leaving.

    def push_out(self, level: int, tenant: str, cost: int) -> Entry | None:
        """Make room for a newcomer: the last request of the tenant that has queued most, if that is more.

        None when the newcomer's own tenant would then have queued as much: then it is the one to refuse.
        """
        return self._levels[level].push_out(tenant, cost)

    def drop_done(self) -> None:
        """Forget requests whose caller has been answered or has gone."""
        for level in self._levels:
            for share in level.shares.values():
                share.drop_done()

    def clear(self) -> list[Entry]:
        """Forget everything, and return it."""
        entries = list(self)
        self._levels = [_Level() for _ in self._levels]
        return entries


class _Filling:
    """A batch being filled."""

    __slots__ = ("_bounds", "_rows", "cost", "entries", "full")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._rows = self.cost = 0
        self.entries: list[Entry] = []
        self.full = False

    def add(self, entry: Entry) -> bool:
        """Take one entry in; False if it does not fit, and then the batch is full."""
        max_rows, max_cost = self._bounds
        rows, cost = self._rows + entry.request.rows, self.cost + entry.cost
        if self.entries and (rows > max_rows or (max_cost and cost > max_cost)):
            self.full = True
            return False
        self.entries.append(entry)
        self._rows, self.cost = rows, cost
        return True

    def fill(self, share: _Share, line: deque[Entry]) -> None:
        """Take from one line as much as fits."""
        # Written out, because every request passes here.
        max_rows, max_cost = self._bounds
        rows, cost, entries = self._rows, self.cost, self.entries
        popleft = line.popleft
        while line:
            head = line[0]
            if head.answer.done():
                share.departed(popleft())
                continue
            rows += head.request.rows
            cost += head.cost
            if entries and (rows > max_rows or (max_cost and cost > max_cost)):
                self.full = True
                return
            entries.append(popleft())
            self._rows, self.cost = rows, cost
