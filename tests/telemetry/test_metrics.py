from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from salver.telemetry.exposition import Gauges, render_metrics
from salver.telemetry.metrics import UNKNOWN_ENDPOINT, CacheCounts, Metrics


def scraped(metrics: Metrics, *gauges: Gauges) -> dict[str, float]:
    """Each sample by its name and the values of its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(render_metrics(metrics, lambda: gauges).decode()):
        for sample in family.samples:
            labels = ",".join(str(value) for _, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    counted = found.version("digits", "1.0.0")
    counted.batch_done(5, 0.01, 0.25, 0.02, [0.5, 0.25], [0.0001, 3.0], 1_700_000_000.0)
    counted.batch_done(1, 0.03, 0.5, 0.04, [0.0], [0.0002], 1_700_000_001.0)
    counted.failed("MODEL_ERROR", 0.125)
    return found


def test_successes_are_counted_by_batch_for_each_of_its_requests(metrics) -> None:
    counted = metrics.version("digits", "1.0.0")
    assert (counted.successes, counted.rows, counted.batches) == (3, 6, {5: 1, 1: 1})
    assert (counted.queue_s.total, counted.compute_s, counted.fail_s) == (0.75, 1.0, 0.125)
    assert (counted.input_s, counted.output_s) == pytest.approx((0.05, 0.08))
    assert (counted.batch_input_seconds, counted.batch_output_seconds) == ({5: 0.01, 1: 0.03}, {5: 0.02, 1: 0.04})
    assert counted.last_success_wall_s == 1_700_000_001.0


def test_a_scrape_says_what_happened(metrics) -> None:
    found = scraped(metrics)
    key = "{digits,1.0.0}"
    assert found[f"salver_requests_total{key}"] == 3
    assert found[f"salver_rows_total{key}"] == 6
    assert (found[f"salver_queue_seconds_sum{key}"], found[f"salver_queue_seconds_count{key}"]) == (0.75, 3)
    buckets = {name.split(",")[1]: count for name, count in found.items() if "queue_seconds_bucket" in name}
    assert (buckets["5e-05"], buckets["0.4096"]) == (1, 2)
    assert found[f"salver_compute_seconds_total{key}"] == 0.75, "a batch counts once"
    assert found["salver_failures_total{MODEL_ERROR,digits,1.0.0}"] == 1
    assert found[f"salver_request_seconds_count{key}"] == 3
    assert found[f"salver_request_seconds_sum{key}"] == pytest.approx(3.0003)


def test_buckets_of_batch_sizes_hold_what_their_borders_say(metrics) -> None:
    for rows in (2, 3, 4, 8192, 10_000):
        metrics.version("digits", "1.0.0").batch_done(rows, 0.0, 0.0, 0.0, [], [], 0.0)
    found = scraped(metrics)
    buckets = {key.split(",")[1]: value for key, value in found.items() if "batch_rows_bucket" in key}
    wanted = {"1": 1, "2": 2, "4": 4, "8": 5, "4096": 5, "+Inf": 7}
    assert {border: buckets[border] for border in wanted} == wanted
    assert found["salver_batch_rows_sum{digits,1.0.0}"] == 6 + 2 + 3 + 4 + 8192 + 10_000


def test_refusals_are_counted_under_the_endpoint_or_other(metrics) -> None:
    metrics.refused("digits", "QUEUE_FULL")
    metrics.refused(None, "NOT_FOUND")
    metrics.refused(None, "NOT_FOUND")
    found = scraped(metrics)
    assert found["salver_refusals_total{QUEUE_FULL,digits}"] == 1
    assert found[f"salver_refusals_total{{NOT_FOUND,{UNKNOWN_ENDPOINT}}}"] == 2


def test_gauges_are_read_when_they_are_scraped(metrics) -> None:
    metrics.connections, metrics.insecure = 3, True
    found = scraped(metrics, Gauges("digits", "1.0.0", 4, 1, 2, available=False, restarts=3))
    assert found["salver_queue_requests{digits,1.0.0}"] == 4
    assert found["salver_running_batches{digits,1.0.0}"] == 1
    assert found["salver_replicas{digits,1.0.0}"] == 2
    assert found["salver_available{digits,1.0.0}"] == 0
    assert (found["salver_connections{}"], found["salver_insecure{}"]) == (3, 1)


def test_names_with_quotes_and_line_breaks_stay_one_label() -> None:
    metrics = Metrics()
    metrics.version('a"b\n', "1\\2").failed("INTERNAL")
    assert scraped(metrics)['salver_failures_total{INTERNAL,a"b\n,1\\2}'] == 1


def test_nothing_yet_is_a_scrape_too() -> None:
    found: dict[str, Any] = scraped(Metrics())
    assert found["salver_connections{}"] == 0


def test_what_a_cache_does_is_told_where_there_is_one(metrics) -> None:
    assert "salver_cache_hits_total" not in {name.partition("{")[0] for name in scraped(metrics)}
    counted = metrics.version("digits", "1.0.0")
    counted.cache = CacheCounts()
    counted.cache.hits, counted.cache.misses, counted.cache.shared, counted.cache.evictions = 4, 3, 2, 1
    plain = Gauges("plain", "1.0.0", 0, 0, 1, available=True)
    found = scraped(metrics, Gauges("digits", "1.0.0", 0, 0, 1, available=True, cache=(500, 2)), plain)
    told = {name[13:]: value for name, value in found.items() if name.startswith("salver_cache_")}
    key = "{digits,1.0.0}"
    assert told == {
        f"hits_total{key}": 4,
        f"misses_total{key}": 3,
        f"shared_total{key}": 2,
        f"evictions_total{key}": 1,
        f"bytes{key}": 500,
        f"answers{key}": 2,
    }


def test_an_answer_without_a_batch_is_a_success_that_was_not_computed(metrics) -> None:
    counted = metrics.version("digits", "1.0.0")
    counted.answered(0.5)
    assert (counted.successes, counted.computed, counted.request_s.freeze().count) == (4, 3, 4)
    counted.withdrawn("MODEL_ERROR", 0.125)
    assert (counted.failures["MODEL_ERROR"], counted.fail_s) == (0, 0.0)


def test_streams_are_counted_where_there_have_been_any(metrics):
    counted = metrics.version("words", "1.0.0")
    assert not [name for name in scraped(metrics) if "stream" in name or "first_chunk" in name]
    counted.streams.opened, counted.streams.cancelled = 3, 1
    for first_s in (0.2, None, None):
        counted.streams.chunk(first_s)
    counted.streamed(2, compute_s=0.1, seconds=0.5, wall_s=1.0)
    found = scraped(metrics, Gauges("words", "1.0.0", 0, 0, 1, available=True, streams=2))
    key = "{words,1.0.0}"
    assert found[f"salver_streams_total{key}"] == 3
    assert found[f"salver_streams_cancelled_total{key}"] == 1
    assert found[f"salver_stream_chunks_total{key}"] == 3
    assert found[f"salver_first_chunk_seconds_sum{key}"] == 0.2
    assert found[f"salver_open_streams{key}"] == 2
    assert (found[f"salver_requests_total{key}"], found[f"salver_rows_total{key}"]) == (1, 2)
    # A stream is a batch of its own.
    assert (found[f"salver_batch_rows_count{key}"], found[f"salver_batch_rows_sum{key}"]) == (1, 2)
    assert found[f"salver_compute_seconds_total{key}"] == 0.1
