from __future__ import annotations

import asyncio
import hashlib
import random
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.asking import ask, assert_settled, code_of, started, turn

from salver.protocol.errors import SalverError
from salver.protocol.request import CacheWish, Request, RequestedOutput
from salver.protocol.tensor import Tensor
from salver.runtime.cache import ResponseCache, layer_caches, request_key
from salver.runtime.pool import Pool
from salver.telemetry.metrics import Metrics, VersionMetrics
from salver.testing import RAISES, HeldReplica, ManualClock, eventually, make_manifest, make_request, make_spec

SEED = hashlib.sha256(b"version")
TTL_S = 300.0


class Cached:
    """A cache over a pool with one replica that runs when it is told to."""

    def __init__(self, pool: Pool, metrics: VersionMetrics, clock: ManualClock) -> None:
        self.pool, self.metrics, self.clock = pool, metrics, clock
        self.replica = HeldReplica(pool)
        self.cache = ResponseCache(pool, pool.spec, pool.manifest, metrics, clock)

    def ask(self, *values: float, **changes: Any) -> asyncio.Future[Any]:
        return ask(self.cache, *values, received_s=self.clock.monotonic_s(), **changes)

    async def answered(self, *values: float, **changes: Any) -> tuple[str, list[list[float]]]:
        """Where the answer comes from, and what it is; the model is let run if it must."""
        future = self.ask(*values, **changes)
        await turn()
        if not future.done():
            await started(self.replica)
            self.replica.finish()
        response = await future
        return (response.cache.source if response.cache else ""), response.array("y").tolist()

    def counted(self) -> tuple[int, int, int]:
        counts = self.metrics.cache
        assert counts is not None
        return counts.hits, counts.misses, counts.shared


@pytest.fixture
def make_cached(make_pool, metrics: VersionMetrics, clock: ManualClock) -> Callable[..., Cached]:
    return lambda **spec: Cached(make_pool(**{"cache_bytes": 100_000, "cache_ttl_s": TTL_S, **spec}), metrics, clock)


async def test_a_request_asked_again_is_answered_without_the_model(make_cached, clock: ManualClock) -> None:
    cached = make_cached()
    assert await cached.answered(1, 2) == ("miss", [[3, 3], [5, 5]])
    clock.advance(TTL_S - 1)
    assert await cached.answered(1, 2) == ("hit", [[3, 3], [5, 5]])
    assert await cached.answered(2, 1) == ("miss", [[5, 5], [3, 3]])
    clock.advance(1)
    assert await cached.answered(1, 2) == ("miss", [[3, 3], [5, 5]])
    assert cached.counted() == (1, 3, 0)
    assert (cached.metrics.successes, cached.metrics.computed) == (4, 3)
    assert len(cached.replica.started) == 3
    assert repr(cached.cache).startswith("<ResponseCache arithmetic@1.0.0 2 kept in ")


async def test_a_hit_says_when_the_model_answered_and_that_nothing_ran(make_cached, clock: ManualClock) -> None:
    cached = make_cached()
    first = cached.ask(1)
    await started(cached.replica)
    clock.advance(2.0)
    cached.replica.finish()
    clock.advance(5.0)
    await first
    hit = await cached.ask(1)
    assert (hit.cache.since_s, hit.cache.ttl_s) == (1007.0, TTL_S)
    assert hit.cache.tag == first.result().cache.tag != ""
    assert (hit.queue_s, hit.batch.compute_s) == (0.0, 0.0)


async def test_identical_requests_in_flight_share_one_run(make_cached) -> None:
    cached = make_cached()
    asked = [cached.ask(1) for _ in range(3)]
    await started(cached.replica)
    cached.replica.finish()
    assert [(await each).cache.source for each in asked] == ["miss", "shared", "shared"]
    assert cached.counted() == (0, 1, 2)
    assert (cached.metrics.successes, cached.metrics.computed) == (3, 1)
    assert repr(cached.cache).endswith(" 0 under way>")


async def test_a_failure_is_asked_again(make_cached) -> None:
    cached = make_cached()
    for _ in range(2):
        future = cached.ask(RAISES)
        await started(cached.replica)
        cached.replica.finish()
        await asyncio.wait([future])
        assert code_of(future) == "MODEL_ERROR"
    assert cached.cache.answers == 0
    assert cached.metrics.failures == {"MODEL_ERROR": 2}


async def test_who_is_refused_by_the_queue_is_no_miss(make_cached) -> None:
    cached = make_cached(max_queue=1)
    first = cached.ask(1)
    await started(cached.replica)
    second = cached.ask(2)
    with pytest.raises(SalverError, match="requests wait"):
        cached.ask(3)
    assert cached.counted() == (0, 2, 0)
    assert cached.cache._flights.under_way == 2
    for each in (first, second):
        each.cancel()
    await turn()
    assert cached.cache._flights.under_way == 0


async def test_kept_answers_are_given_even_without_a_replica(make_cached) -> None:
    cached = make_cached()
    await cached.answered(1)
    assert cached.cache.available
    cached.pool.unavailable(SalverError("NOT_READY", "gone"))
    cached.pool._unavailable = SalverError("NOT_READY", "gone")
    assert not cached.cache.available
    assert (await cached.answered(1))[0] == "hit"
    with pytest.raises(SalverError, match="gone"):
        cached.ask(2)


# What a client wishes.


async def test_with_no_cache_the_model_answers_anew_and_the_answer_is_kept(make_cached, clock: ManualClock) -> None:
    cached = make_cached()
    await cached.answered(1)
    clock.advance(10.0)
    assert (await cached.answered(1, cache=CacheWish(look=False)))[0] == "miss"
    hit = await cached.ask(1)
    assert hit.cache.since_s == 1010.0
    assert cached.cache.answers == 1


async def test_with_no_cache_nobody_joins_what_began_before(make_cached) -> None:
    cached = make_cached()
    before = cached.ask(1)
    await started(cached.replica)
    anew = cached.ask(1, cache=CacheWish(look=False))
    joined = cached.ask(1)
    cached.replica.finish()
    await before
    await turn()
    assert not anew.done()
    assert not joined.done()
    cached.replica.finish()
    assert ((await anew).cache.source, (await joined).cache.source) == ("miss", "shared")


async def test_with_no_store_the_cache_is_passed_by(make_cached) -> None:
    cached = make_cached()
    no_store = CacheWish(look=False, keep=False)
    assert await cached.answered(1, cache=no_store) == ("", [[3, 3]])
    assert cached.cache.answers == 0
    await cached.answered(1)
    assert await cached.answered(1, cache=no_store) == ("", [[3, 3]])
    assert cached.counted() == (0, 1, 0)


async def test_inputs_too_large_to_be_hashed_in_passing_pass_by(make_cached, monkeypatch) -> None:
    monkeypatch.setattr("salver.runtime.cache._MOST_INPUT_BYTES", 8)
    cached = make_cached()
    assert [(await cached.answered(1))[0] for _ in range(2)] == ["miss", "hit"]
    assert [(await cached.answered(1, 1))[0] for _ in range(2)] == ["", ""]
    with pytest.raises(SalverError, match="no answer is kept"):
        cached.ask(1, 1, cache=CacheWish(only_kept=True))


async def test_only_a_kept_answer_will_do_for_who_says_so(make_cached) -> None:
    cached = make_cached()
    wishes = [CacheWish(only_kept=True), CacheWish(only_kept=True, look=False), CacheWish(False, False, only_kept=True)]
    running = cached.ask(1)
    for wish in wishes:
        with pytest.raises(SalverError) as refused:
            cached.ask(1, cache=wish)
        assert (refused.value.code, refused.value.http) == ("NOT_CACHED", 504)
    await started(cached.replica)
    cached.replica.finish()
    await running
    assert (await cached.answered(1, cache=wishes[0]))[0] == "hit"
    for wish in wishes[1:]:
        with pytest.raises(SalverError):
            cached.ask(1, cache=wish)
    assert cached.counted() == (1, 1 + 2 + 1, 0), "who rules the cache out is not counted there"


async def test_who_has_the_answer_already_is_told_so(make_cached) -> None:
    cached = make_cached()
    anything = CacheWish(unless=frozenset({b"*"}))
    assert (await cached.answered(1, cache=anything))[0] == "miss", "nothing was kept yet"
    tag = (await cached.ask(1)).cache.tag.encode()
    for tags in ({b"*"}, {b"other", tag}):
        with pytest.raises(SalverError) as refused:
            cached.ask(1, cache=CacheWish(unless=frozenset(tags)))
        assert (refused.value.code, refused.value.http) == ("PRECONDITION_FAILED", 412)
    assert (await cached.answered(1, cache=CacheWish(unless=frozenset({b"other"}))))[0] == "hit"
    assert cached.counted() == (4, 1, 0)


# What is identical.


def tensor(name: str, *values: float, dtype: type = np.float32) -> Tensor:
    return Tensor.from_numpy(name, np.array([values], dtype))


def request(*tensors: Tensor, **changes: Any) -> Request:
    made = Request("arithmetic", {each.name: each for each in tensors})
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def key(*tensors: Tensor, **changes: Any) -> bytes:
    return request_key(SEED, request(*tensors, **changes))


def test_what_says_nothing_of_the_answer_is_no_part_of_the_key() -> None:
    a, b = tensor("a", 1, 2), tensor("b", 3)
    one = key(a, b, parameters={"p": 1, "q": "x"})
    assert key(b, a, parameters={"q": "x", "p": 1}) == one
    changes = {
        "id": "i",
        "trace": b"t",
        "priority": 3,
        "deadline_s": 1.0,
        "received_s": 2.0,
        "rows": 1,
        "cache": CacheWish(),
        "parameters": {"p": 1, "q": "x", "timeout": 5, "priority": 2, "salver_timing": True},
    }
    for name, value in changes.items():
        parameters = {"parameters": {"p": 1, "q": "x"}} | {name: value}
        assert key(a, b, **parameters) == one, name
    assert key(a, parameters={}) == key(a) == key(a, parameters={"timeout": 5})
    view = msgspec.structs.replace(a, data=memoryview(bytes(a.data)))
    assert key(view) == key(a)


def test_what_says_anything_of_the_answer_makes_another_key() -> None:
    a = tensor("a", 1, 2)
    wide = 10**5000
    different = [
        key(a),
        key(tensor("b", 1, 2)),
        key(tensor("a", 2, 1)),
        key(msgspec.structs.replace(a, shape=(2, 1))),
        key(msgspec.structs.replace(a, datatype="INT32")),
        key(a, tensor("b", 3)),
        key(a, tenant="t"),
        key(a, outputs=()),
        key(a, outputs=(RequestedOutput("y"),)),
        key(a, outputs=(RequestedOutput("y", binary=True),)),
        key(a, outputs=(RequestedOutput("y", classification=2),)),
        key(a, outputs=(RequestedOutput("y"), RequestedOutput("z"))),
        key(a, outputs=(RequestedOutput("z"), RequestedOutput("y"))),
        *(key(a, parameters={"p": value}) for value in (1, 1.0, True, "1", "x", wide, wide + 1, float("nan"))),
        key(a, parameters={"q": 1}),
        request_key(hashlib.sha256(b"another version"), request(a)),
    ]
    assert len(set(different)) == len(different)


TEXT = st.binary(max_size=6)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=3), st.lists(st.tuples(TEXT, TEXT), max_size=3))
def test_two_keys_are_equal_only_for_equal_inputs(first, second) -> None:
    def made(pairs: list[tuple[bytes, bytes]]) -> dict[str, Tensor]:
        return {name.hex(): Tensor(name.hex(), "BYTES", (1,), data) for name, data in pairs}

    one, other = made(first), made(second)
    keys = [request_key(SEED, Request("e", inputs)) for inputs in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


# Versions.


async def test_each_version_and_each_deploy_has_a_cache_of_its_own_and_the_old_one_is_freed(
    clock: ManualClock,
) -> None:
    metrics, spec = Metrics(), make_spec(cache_bytes=100_000)
    old = Pool(spec, make_manifest(), metrics.version("arithmetic", "1.0.0"), clock)
    replica = HeldReplica(old)
    before = layer_caches([old], {}, metrics, clock)
    assert layer_caches([old], before, metrics, clock) == before, "as long as it serves, it is the same"
    first = ask(before[old], 1)
    await started(replica)
    replica.finish()
    await first
    kept = weakref.ref((await ask(before[old], 1)).batch.arrays["y"])
    assert kept() is not None
    under_way = ask(before[old], 2)
    waiting = ask(before[old], 2)
    await started(replica)

    new = Pool(msgspec.structs.replace(spec, generation=1), make_manifest(), metrics.version("a", "1"), clock)
    after = layer_caches([new], before, metrics, clock)
    assert kept() is None, "although somebody may still hold the cache"
    assert (after[new].answers, before[old].answers, before[old].size_bytes) == (0, 0, 0)
    assert _key_of(after[new], 1) != _key_of(before[old], 1)
    replica.finish()
    assert [(await each).array("y").tolist() for each in (under_way, waiting)] == [[[5, 5]]] * 2
    assert before[old].answers == 0
    await asyncio.gather(*(pool.stop(SalverError("NOT_READY", "end")) for pool in (old, new)))


def _key_of(cache: ResponseCache, value: float) -> bytes:
    return request_key(cache._seed, make_request([[value, value]]))


async def test_without_cache_bytes_or_idempotence_there_is_no_layer(clock: ManualClock) -> None:
    metrics = Metrics()
    counted = metrics.version("arithmetic", "1.0.0")
    plain = Pool(make_spec(), make_manifest(), counted, clock)
    unfit = [make_manifest(idempotent=False), make_manifest(kind="sequence"), make_manifest(kind="generate")]
    unfit.append(make_manifest(streams=True))
    pools = [plain, *(Pool(make_spec(cache_bytes=1000), manifest, counted, clock) for manifest in unfit)]
    assert layer_caches(pools, {}, metrics, clock) == {}
    assert counted.cache is None


# Everything at once.


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_happens_each_request_is_answered_once_and_rightly(
    seed: int, metrics: VersionMetrics, clock: ManualClock
) -> None:
    rng = random.Random(seed)
    spec = make_spec(
        cache_bytes=rng.choice((3000, 100_000)), cache_ttl_s=rng.choice((0.05, 60.0)), max_queue=rng.choice((3, 30))
    )
    cached = Cached(Pool(spec, make_manifest(), metrics, clock), metrics, clock)
    asked: list[tuple[float, asyncio.Future[Any]]] = []
    wishes = [None] * 6 + [CacheWish(look=False), CacheWish(look=False, keep=False), CacheWish(max_age_s=0.01)]
    for _ in range(300):
        action = rng.random()
        if action < 0.5:
            value = rng.choice((1.0, 2.0, 3.0, 4.0, RAISES))
            deadline_s = clock.monotonic_s() + rng.choice((0.01, 0.1)) if rng.random() < 0.3 else float("inf")
            try:
                asked.append((value, cached.ask(value, deadline_s=deadline_s, cache=rng.choice(wishes))))
            except SalverError as error:
                assert error.code == "QUEUE_FULL"
        elif action < 0.6 and asked:
            rng.choice(asked)[1].cancel()
        elif action < 0.7:
            clock.advance(rng.choice((0.001, 0.05)))
            cached.cache._flights._look()
        elif cached.replica.batch:
            cached.replica.finish()
        await asyncio.sleep(0)
        assert cached.cache.size_bytes <= spec.cache_bytes
        assert cached.cache.size_bytes == sum(kept.size_bytes for kept in cached.cache._kept._kept.values())
    while not all(future.done() for _, future in asked):
        if cached.replica.batch:
            cached.replica.finish()
        await turn()
    gone = 0
    for value, future in asked:
        if future.cancelled():
            gone += 1
        elif future.exception() is not None:
            assert code_of(future) in {"MODEL_ERROR", "DEADLINE_EXCEEDED", "QUEUE_FULL"}
        else:
            assert value != RAISES
            assert future.result().array("y").tolist() == [[2 * value + 1] * 2]
    failures = sum(metrics.failures.values())
    assert min(metrics.failures.values(), default=0) >= 0
    assert metrics.successes + failures + gone == len(asked)
    assert metrics.request_s.freeze().count == metrics.successes
    cached.replica.model.release()
    await eventually(lambda: not cached.replica.batch or cached.replica.finish())
    assert cached.cache._flights.under_way == 0
    assert_settled(cached.pool)
