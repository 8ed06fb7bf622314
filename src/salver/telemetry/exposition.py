"""The counters as Prometheus text; the library writes the format, we only hand over numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from salver.stats.histogram import LATENCY_BOUNDS_S
from salver.telemetry.metrics import Metrics, VersionMetrics

__all__ = ["CONTENT_TYPE_LATEST", "Gauges", "render_metrics"]

_LABELS = ("endpoint", "version")


class Gauges(NamedTuple):
    """What one endpoint has at the moment of a scrape."""

    endpoint: str
    version: str
    waiting: int
    running: int
    replicas: int
    available: bool
    restarts: int = 0
    """Workers started again since the version was loaded."""


def render_metrics(metrics: Metrics, gauges: Callable[[], Iterable[Gauges]]) -> bytes:
    """All metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics, gauges))
    return generate_latest(registry)


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Callable[[], Iterable[Gauges]]) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _by_version(self._metrics.versions)
        yield from _by_endpoint(self._gauges())
        yield from _by_process(self._metrics)


def _by_version(versions: dict[tuple[str, str], VersionMetrics]) -> Iterator[Metric]:
    successes = CounterMetricFamily("salver_requests", "Requests answered by a model", labels=_LABELS)
    failures = CounterMetricFamily("salver_failures", "Accepted requests that failed", labels=(*_LABELS, "code"))
    rows = CounterMetricFamily("salver_rows", "Rows predicted", labels=_LABELS)
    queue = CounterMetricFamily("salver_queue_seconds", "Seconds requests waited, summed", labels=_LABELS)
    compute = CounterMetricFamily("salver_compute_seconds", "Seconds batches computed, summed", labels=_LABELS)
    outside = CounterMetricFamily("salver_outside_profile", "Requests unlike the training data", labels=_LABELS)
    latency = HistogramMetricFamily("salver_request_seconds", "From reception to answer", labels=_LABELS)
    batches = HistogramMetricFamily("salver_batch_rows", "Rows of the batches that ran", labels=_LABELS)
    for key, counted in sorted(versions.items()):
        successes.add_metric(key, counted.successes)
        rows.add_metric(key, counted.rows)
        queue.add_metric(key, counted.queue_s)
        compute.add_metric(key, sum(counted.batch_seconds.values()))
        outside.add_metric(key, counted.outside_profile)
        for code, count in sorted(counted.failures.items()):
            failures.add_metric((*key, code), count)
        latency.add_metric(key, _cumulative(LATENCY_BOUNDS_S, counted.request_s.counts), counted.request_s.total)
        sizes = _batch_counts(counted)
        total = sum(size * count for size, count in counted.batches.items())
        batches.add_metric(key, _cumulative(_BATCH_BOUNDS, sizes), total)
    yield from (successes, failures, rows, queue, compute, outside, latency, batches)


_BATCH_BOUNDS = tuple(float(2**step) for step in range(13))


def _batch_counts(counted: VersionMetrics) -> list[int]:
    counts = [0] * (len(_BATCH_BOUNDS) + 1)
    for size, count in counted.batches.items():
        counts[min((size - 1).bit_length(), len(_BATCH_BOUNDS))] += count
    return counts


def _cumulative(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    seen = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        seen += count
        buckets.append((f"{bound:g}" if bound != float("inf") else "+Inf", seen))
    return buckets


def _by_endpoint(gauges: Iterable[Gauges]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("salver_queue_requests", "Requests waiting", labels=_LABELS)
    running = GaugeMetricFamily("salver_running_batches", "Batches computing", labels=_LABELS)
    replicas = GaugeMetricFamily("salver_replicas", "Replicas loaded", labels=_LABELS)
    available = GaugeMetricFamily("salver_available", "1 while a healthy replica is there to answer", labels=_LABELS)
    restarts = CounterMetricFamily("salver_worker_restarts", "Workers started again", labels=_LABELS)
    for row in gauges:
        key = (row.endpoint, row.version)
        waiting.add_metric(key, row.waiting)
        running.add_metric(key, row.running)
        replicas.add_metric(key, row.replicas)
        available.add_metric(key, float(row.available))
        restarts.add_metric(key, row.restarts)
    yield from (waiting, running, replicas, available, restarts)


def _by_process(metrics: Metrics) -> Iterator[Metric]:
    refusals = CounterMetricFamily(
        "salver_refusals", "Requests answered with an error, other than salver_failures", labels=("endpoint", "code")
    )
    for (endpoint, code), count in sorted(metrics.refusals.items()):
        refusals.add_metric((endpoint, code), count)
    yield refusals
    yield GaugeMetricFamily("salver_connections", "Open client connections", value=metrics.connections)
    yield CounterMetricFamily(
        "salver_connections_opened", "Client connections accepted", value=metrics.connections_total
    )
    yield CounterMetricFamily("salver_accept_pauses", "Times accepting paused", value=metrics.accept_pauses)
    yield GaugeMetricFamily("salver_loop_lag_seconds", "Lateness of the event loop", value=metrics.loop_lag_s)
    yield GaugeMetricFamily("salver_insecure", "1 when started with --insecure", value=float(metrics.insecure))
