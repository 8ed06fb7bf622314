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
from salver.telemetry.job_metrics import job_families
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
    cache: tuple[int, int] | None = None
    """Bytes and number of the answers that its cache keeps; None without one."""
    sessions: int | None = None
    """Sessions open; None for a version that keeps no state."""
    streams: int | None = None
    """Streams open; None for a version that does not stream."""
    size_bytes: int = 0
    """Memory that the version takes."""


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
        yield from _by_cache(self._metrics.versions)
        yield from _by_session(self._metrics.versions)
        yield from _by_load(self._metrics.versions)
        yield from _by_stream(self._metrics.versions)
        yield from _by_endpoint(self._gauges())
        yield from job_families(self._metrics.jobs)
        yield from _by_process(self._metrics)


def _by_version(versions: dict[tuple[str, str], VersionMetrics]) -> Iterator[Metric]:
    successes = CounterMetricFamily("salver_requests", "Requests answered", labels=_LABELS)
    failures = CounterMetricFamily("salver_failures", "Accepted requests that failed", labels=(*_LABELS, "code"))
    rows = CounterMetricFamily("salver_rows", "Rows predicted", labels=_LABELS)
    queue = HistogramMetricFamily("salver_queue_seconds", "From the queue to the batch", labels=_LABELS)
    compute = CounterMetricFamily("salver_compute_seconds", "Seconds batches computed, summed", labels=_LABELS)
    busy = CounterMetricFamily("salver_busy_seconds", "Seconds replicas were taken by batches, summed", labels=_LABELS)
    outside = CounterMetricFamily("salver_outside_profile", "Requests unlike the training data", labels=_LABELS)
    latency = HistogramMetricFamily("salver_request_seconds", "From reception to answer", labels=_LABELS)
    batches = HistogramMetricFamily("salver_batch_rows", "Rows of the batches that ran", labels=_LABELS)
    for key, counted in sorted(versions.items()):
        successes.add_metric(key, counted.successes)
        rows.add_metric(key, counted.rows)
        queue.add_metric(key, _cumulative(LATENCY_BOUNDS_S, counted.queue_s.counts), counted.queue_s.total)
        compute.add_metric(key, sum(counted.batch_seconds.values()))
        busy.add_metric(key, counted.busy_s)
        outside.add_metric(key, counted.outside_profile)
        for code, count in sorted(counted.failures.items()):
            failures.add_metric((*key, code), count)
        latency.add_metric(key, _cumulative(LATENCY_BOUNDS_S, counted.request_s.counts), counted.request_s.total)
        sizes = _batch_counts(counted)
        total = sum(size * count for size, count in counted.batches.items())
        batches.add_metric(key, _cumulative(_BATCH_BOUNDS, sizes), total)
    yield from (successes, failures, rows, queue, compute, busy, outside, latency, batches)


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


def _by_cache(versions: dict[tuple[str, str], VersionMetrics]) -> Iterator[Metric]:
    hits = CounterMetricFamily("salver_cache_hits", "Requests answered with a kept answer", labels=_LABELS)
    misses = CounterMetricFamily("salver_cache_misses", "Requests that a cache passed on", labels=_LABELS)
    shared = CounterMetricFamily("salver_cache_shared", "Requests that joined an identical one", labels=_LABELS)
    evictions = CounterMetricFamily("salver_cache_evictions", "Answers that made room for others", labels=_LABELS)
    for key, counted in sorted(versions.items()):
        if (cache := counted.cache) is not None:
            hits.add_metric(key, cache.hits)
            misses.add_metric(key, cache.misses)
            shared.add_metric(key, cache.shared)
            evictions.add_metric(key, cache.evictions)
    yield from (hits, misses, shared, evictions)


def _by_session(versions: dict[tuple[str, str], VersionMetrics]) -> Iterator[Metric]:
    begun = CounterMetricFamily("salver_sessions_begun", "Sessions begun", labels=_LABELS)
    over = CounterMetricFamily("salver_sessions_over", "Sessions that are over, by how", labels=(*_LABELS, "how"))
    for key, counted in sorted(versions.items()):
        if (sessions := counted.sessions) is not None:
            begun.add_metric(key, sessions.begun)
            for how in ("ended", "expired", "lost"):
                over.add_metric((*key, how), getattr(sessions, how))
    yield from (begun, over)


def _by_stream(versions: dict[tuple[str, str], VersionMetrics]) -> Iterator[Metric]:
    opened = CounterMetricFamily("salver_streams", "Streams opened", labels=_LABELS)
    cancelled = CounterMetricFamily("salver_streams_cancelled", "Streams whose client left", labels=_LABELS)
    chunks = CounterMetricFamily("salver_stream_chunks", "Parts of answers that models gave", labels=_LABELS)
    first = HistogramMetricFamily("salver_first_chunk_seconds", "From reception to the first part", labels=_LABELS)
    for key, counted in sorted(versions.items()):
        if (streams := counted.streams).opened:
            opened.add_metric(key, streams.opened)
            cancelled.add_metric(key, streams.cancelled)
            chunks.add_metric(key, streams.chunks)
            taken = streams.first_chunk_s
            first.add_metric(key, _cumulative(LATENCY_BOUNDS_S, taken.counts), taken.total)
    yield from (opened, cancelled, chunks, first)


def _by_load(versions: dict[tuple[str, str], VersionMetrics]) -> Iterator[Metric]:
    loads = CounterMetricFamily("salver_loads", "Times that the version was loaded", labels=_LABELS)
    seconds = CounterMetricFamily("salver_load_seconds", "Seconds that loads took, summed", labels=_LABELS)
    unloads = CounterMetricFamily("salver_unloads", "Times that it was unloaded", labels=_LABELS)
    cold = CounterMetricFamily("salver_cold_starts", "Loads that a request waited for", labels=_LABELS)
    for key, counted in sorted(versions.items()):
        loading = counted.loading
        loads.add_metric(key, loading.loads)
        seconds.add_metric(key, loading.seconds)
        unloads.add_metric(key, loading.unloads)
        cold.add_metric(key, loading.cold_starts)
    yield from (loads, seconds, unloads, cold)


def _by_endpoint(gauges: Iterable[Gauges]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("salver_queue_requests", "Requests waiting", labels=_LABELS)
    running = GaugeMetricFamily("salver_running_batches", "Batches computing", labels=_LABELS)
    replicas = GaugeMetricFamily("salver_replicas", "Replicas loaded", labels=_LABELS)
    available = GaugeMetricFamily("salver_available", "1 while a healthy replica is there to answer", labels=_LABELS)
    restarts = CounterMetricFamily("salver_worker_restarts", "Workers started again", labels=_LABELS)
    kept_bytes = GaugeMetricFamily("salver_cache_bytes", "Bytes of the answers kept", labels=_LABELS)
    kept = GaugeMetricFamily("salver_cache_answers", "Answers kept", labels=_LABELS)
    sessions = GaugeMetricFamily("salver_sessions", "Sessions open", labels=_LABELS)
    streams = GaugeMetricFamily("salver_open_streams", "Streams open", labels=_LABELS)
    loaded = GaugeMetricFamily("salver_loaded_bytes", "Memory that the loaded version takes", labels=_LABELS)
    for row in gauges:
        key = (row.endpoint, row.version)
        waiting.add_metric(key, row.waiting)
        running.add_metric(key, row.running)
        replicas.add_metric(key, row.replicas)
        available.add_metric(key, float(row.available))
        restarts.add_metric(key, row.restarts)
        loaded.add_metric(key, row.size_bytes)
        if row.cache is not None:
            kept_bytes.add_metric(key, row.cache[0])
            kept.add_metric(key, row.cache[1])
        if row.sessions is not None:
            sessions.add_metric(key, row.sessions)
        if row.streams is not None:
            streams.add_metric(key, row.streams)
    yield from (waiting, running, replicas, available, restarts, kept_bytes, kept, sessions, streams, loaded)


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
