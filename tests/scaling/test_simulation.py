"""The simulator against what can be computed, by hand or in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import BatchPolicy, DeploymentSpec, QueuePolicy
from salver.scaling.simulation import Arrival, measured_service, simulate

LINE = {1: 0.011, 8: 0.018, 32: 0.042, 64: 0.074}
"""10 ms, and 1 ms for each row."""


def spec(**changes) -> DeploymentSpec:
    return DeploymentSpec("e", "m", "1.0.0", **{"max_batch": 64, "max_queue": 100_000} | changes)


def poisson(rate: float, requests: int, *, tenant: str = "", seed: int = 0) -> list[Arrival]:
    gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
    return [Arrival(float(at_s), tenant=tenant) for at_s in np.cumsum(gaps)]


def at(*times_s: float) -> list[Arrival]:
    return [Arrival(at_s) for at_s in times_s]


# By hand.


@pytest.mark.parametrize(
    ("changes", "times_s", "latencies_s", "batches"),
    [
        # 25 ms whatever the size: the second and third run together at 25 ms, the rest at 50 ms.
        ({}, (0.0, 0.010, 0.020, 0.030, 0.040), (0.025, 0.040, 0.030, 0.045, 0.035), 3),
        ({"max_batch": 1}, (0.0, 0.010, 0.020), (0.025, 0.040, 0.055), 3),
        ({"replicas": 2, "max_batch": 1}, (0.0, 0.010, 0.020), (0.025, 0.025, 0.030), 3),
        # Held until the oldest has waited 15 ms.
        ({"policy": "timeout", "max_wait_s": 0.015}, (0.0, 0.010, 0.070), (0.040, 0.030, 0.040), 2),
        ({"policy": "timeout", "max_wait_s": 0.015, "max_batch": 2}, (0.0, 0.010, 0.070), (0.035, 0.025, 0.040), 2),
        ({"policy": "hybrid", "max_wait_s": 0.015, "min_batch": 2}, (0.0, 0.010, 0.070), (0.035, 0.025, 0.040), 2),
    ],
)
def test_a_few_requests_take_what_one_can_work_out(changes, times_s, latencies_s, batches) -> None:
    if "policy" in changes:
        changes = changes | {"policy": BatchPolicy(changes["policy"])}
    outcome = simulate(spec(**changes), {1: 0.025, 64: 0.025}, at(*times_s))
    ordered = sorted(latencies_s)
    assert (outcome.answered, outcome.batches) == (len(times_s), batches)
    assert outcome.mean_s == pytest.approx(sum(ordered) / len(ordered), abs=1e-6)
    assert outcome.p50_s == pytest.approx(ordered[math.ceil(len(ordered) / 2) - 1], abs=1e-6)
    assert outcome.p99_s == pytest.approx(ordered[-1], abs=1e-6)
    assert outcome.mean_batch_rows == pytest.approx(len(times_s) / batches)


def test_the_first_arrival_is_the_beginning_and_overhead_is_added_to_each_latency() -> None:
    plain = simulate(spec(), LINE, at(0.0, 0.1))
    shifted = simulate(spec(), LINE, at(1.7e9, 1.7e9 + 0.1), overhead_s=0.003)
    assert shifted.mean_s == pytest.approx(plain.mean_s + 0.003, abs=1e-6)


def test_a_deferred_batch_begins_when_its_first_request_must_be_begun() -> None:
    outcome = simulate(spec(policy=BatchPolicy.DEFERRED, slo_s=0.1), LINE, at(0.0, 0.03, 0.05))
    assert outcome.batches == 1
    # Two rows or three are expected to take no more than 18 ms, and the loop may be late by 10.
    assert 0.06 < outcome.p99_s <= 0.1


# In closed form.


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_at_a_time_the_mean_wait_is_that_of_an_m_d_1_queue(load: float) -> None:
    service_s = 0.010
    outcome = simulate(spec(max_batch=1), {1: service_s}, poisson(load / service_s, 15_000))
    waited_s = load * service_s / (2 * (1 - load))
    assert outcome.mean_s - service_s == pytest.approx(waited_s, rel=0.08)
    assert outcome.busy_ratio == pytest.approx(load, rel=0.02)
    assert outcome.mean_batch_rows == 1


@pytest.mark.parametrize("per_batch", [0.2, 1.0, 5.0])
def test_with_batches_without_bound_each_takes_what_came_during_the_last(per_batch: float) -> None:
    """Bulk service: while one batch runs a Poisson number comes, and where that is none the next comer begins one."""
    service_s = 0.010
    outcome = simulate(spec(max_batch=10_000), {1: service_s, 8192: service_s}, poisson(per_batch / service_s, 10_000))
    rows = per_batch + math.exp(-per_batch)
    assert outcome.mean_batch_rows == pytest.approx(rows, rel=0.02)
    waited_s = per_batch * service_s / 2 / rows
    assert outcome.mean_s - service_s == pytest.approx(waited_s, rel=0.05)


# Policies on one load.


@pytest.fixture(scope="module")
def outcomes():
    load = poisson(300, 3000)
    changes = {
        BatchPolicy.EAGER: {},
        BatchPolicy.TIMEOUT: {"max_wait_s": 0.02},
        BatchPolicy.HYBRID: {"max_wait_s": 0.02, "min_batch": 4},
        BatchPolicy.PREDICTIVE: {},
        BatchPolicy.DEFERRED: {"slo_s": 0.15},
    }
    return {policy: simulate(spec(policy=policy, **more), LINE, load) for policy, more in changes.items()}


def test_every_policy_answers_every_request_of_an_ordinary_load(outcomes) -> None:
    for outcome in outcomes.values():
        assert (outcome.answered, outcome.refused, outcome.expired) == (3000, 0, 0)
        assert outcome.within_slo == 3000


def test_who_waits_longer_has_larger_batches_and_a_less_busy_model(outcomes) -> None:
    rows = {policy: outcome.mean_batch_rows for policy, outcome in outcomes.items()}
    busy = {policy: outcome.busy_ratio for policy, outcome in outcomes.items()}
    order = [BatchPolicy.EAGER, BatchPolicy.HYBRID, BatchPolicy.TIMEOUT, BatchPolicy.DEFERRED]
    assert [rows[policy] for policy in order] == sorted(rows[policy] for policy in order)
    assert [busy[policy] for policy in order] == sorted((busy[policy] for policy in order), reverse=True)
    assert rows[BatchPolicy.DEFERRED] > 3 * rows[BatchPolicy.EAGER]
    assert outcomes[BatchPolicy.EAGER].mean_s < outcomes[BatchPolicy.TIMEOUT].mean_s


def test_nobody_loses_by_predicting_and_with_a_large_fixed_cost_and_dense_arrivals_all_gain() -> None:
    assert simulate(spec(policy=BatchPolicy.PREDICTIVE), LINE, poisson(50, 3000)).mean_s == pytest.approx(
        simulate(spec(), LINE, poisson(50, 3000)).mean_s, rel=0.01
    )
    # Three at a time, a moment apart, to a model that is idle in between: 100 ms and 1 ms a row.
    bursts = [Arrival(second + 0.002 * number) for second in range(200) for number in range(3)]
    costly = {1: 0.101, 64: 0.164}
    eager = simulate(spec(), costly, bursts)
    timeout = simulate(spec(policy=BatchPolicy.TIMEOUT, max_wait_s=0.005), costly, bursts)
    assert timeout.mean_s < 0.8 * eager.mean_s


# Too much.


def test_goodput_under_five_times_the_capacity_is_near_its_peak() -> None:
    objective = spec(slo_s=0.1, max_queue=1024)
    capacity = 35 / 0.045
    good = {
        load: simulate(objective, LINE, poisson(load * capacity, int(load * capacity * 2))).goodput_per_s
        for load in (0.5, 0.8, 1.0, 2.0, 5.0)
    }
    assert good[5.0] >= 0.85 * max(good.values())
    assert good[5.0] >= 0.85 * capacity
    without = simulate(spec(max_queue=1024), LINE, poisson(5 * capacity, int(5 * capacity * 4)))
    assert without.p50_s > 0.1, "an ordinary queue would only answer late"


def test_what_is_refused_and_what_expires_is_counted() -> None:
    crowd = at(*[0.0] * 10)
    full = simulate(spec(max_batch=1, max_queue=4), {1: 0.1}, crowd)
    assert (full.answered, full.refused, full.expired) == (4, 6, 0)
    late = simulate(spec(max_batch=1, deadline_s=0.35), {1: 0.1}, crowd)
    assert (late.answered, late.refused, late.expired) == (3, 0, 7)
    nothing = simulate(spec(deadline_s=0.05), {1: 0.1, 64: 0.1}, crowd)
    assert (nothing.answered, nothing.expired, nothing.mean_s, nothing.p99_s) == (0, 10, None, None)
    assert simulate(spec(max_batch=4), LINE, [Arrival(0.0, 5)]).refused == 1


# Tenants and levels.


def test_a_tenant_with_ten_times_its_share_does_not_move_another() -> None:
    quiet = poisson(30, 900, tenant="quiet", seed=1)
    other = poisson(30, 900, tenant="other", seed=2)
    loud = poisson(10 * 30, 9000, tenant="other", seed=2)
    # Rows that cost little beside the batch: else more load is longer batches for everybody.
    flat = {1: 0.0101, 64: 0.0164}
    alone, beside = (simulate(spec(), flat, sorted([*quiet, *others])) for others in (other, loud))
    assert beside.mean_batch_rows > 1.5 * alone.mean_batch_rows
    assert beside.tenants["quiet"].answered == 900
    assert beside.tenants["quiet"].p99_s <= 1.3 * alone.tenants["quiet"].p99_s


def test_a_tenant_beyond_all_capacity_only_hurts_itself() -> None:
    quiet = poisson(30, 150, tenant="quiet", seed=1)
    flood = poisson(4000, 20_000, tenant="flood", seed=2)
    outcome = simulate(spec(max_batch=16, max_queue=200), LINE, sorted([*quiet, *flood]))
    assert outcome.tenants["quiet"].answered == 150
    assert outcome.tenants["quiet"].p99_s <= 3 * 0.026
    assert outcome.tenants["flood"].p99_s > 0.15


def test_an_urgent_level_hardly_notices_a_crowded_one() -> None:
    load = sorted(
        [
            *(arrival._replace(priority=1) for arrival in poisson(30, 150, seed=1)),
            *(arrival._replace(priority=2, tenant="slow") for arrival in poisson(2000, 10_000, seed=2)),
        ]
    )
    levels = (QueuePolicy(), QueuePolicy(max_queue=300))
    outcome = simulate(spec(max_batch=16, priorities=levels), LINE, load)
    assert outcome.tenants[""].answered == 150
    assert outcome.tenants[""].p99_s < 0.06 < outcome.tenants["slow"].p99_s


# What goes in.


@pytest.mark.parametrize(
    ("points", "rows", "seconds"),
    [
        ({1: 0.01}, 1, 0.01),
        ({1: 0.01}, 5, 0.05),  # of one size all that is known is its rate
        ({1: 0.01, 9: 0.02}, 5, 0.015),
        ({1: 0.01, 9: 0.02}, 17, 0.03),
        ({4: 0.01, 8: 0.02}, 1, 0.01),
        ({1: 0.02, 8: 0.01}, 16, 0.01),
        ({1: 0.01, 4: 0.01, 8: 0.05}, 4, 0.01),
        ({1: 0.0}, 3, 0.0),
    ],
)
def test_between_and_beyond_measured_sizes_a_batch_takes_what_the_nearest_say(points, rows, seconds) -> None:
    assert measured_service(points)(rows) == pytest.approx(seconds)


@pytest.mark.parametrize("points", [{}, {0: 0.1}, {1: -0.1}, {1: math.nan}, {1: math.inf}])
def test_a_curve_that_is_none_is_refused(points) -> None:
    with pytest.raises(SalverError, match="no sound point"):
        simulate(spec(), points, at(0.0))


@pytest.mark.parametrize(
    "load",
    [
        [],
        at(1.0, 0.5),
        at(0.0, math.nan),
        at(0.0, math.inf),
        at(-math.inf, 0.0),
        [Arrival(0.0, 0)],
        [Arrival(0.0, -5)],
        [Arrival(0.0, 10**12)],
    ],
)
def test_a_load_that_is_none_is_refused(load) -> None:
    with pytest.raises(SalverError) as raised:
        simulate(spec(), LINE, load)
    assert raised.value.code == "INVALID_PARAMETER"


def test_the_same_load_gives_the_same_outcome() -> None:
    assert simulate(spec(), LINE, poisson(300, 500)) == simulate(spec(), LINE, poisson(300, 500))
