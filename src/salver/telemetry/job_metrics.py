"""Counters of jobs, and their families in the exposition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["JobMetrics", "job_families"]


class JobMetrics:
    """What one server process has done with jobs, by endpoint, and what it last saw in the store."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()
        """By endpoint and code."""
        self.retried: Counter[str] = Counter()
        """Attempts that ended without an outcome: the job waits again."""
        self.cancelled: Counter[str] = Counter()
        self.expired: Counter[str] = Counter()
        """Jobs that were given up because they waited for too long."""
        self.backlogs: dict[str, tuple[int, int, float]] = {}
        """Waiting, running, and seconds that the oldest has waited; of the whole store, whoever runs them."""
        self.deliveries: dict[tuple[str, str], int] = {}
        """Tries of webhooks by name and outcome; of the whole store."""


def job_families(metrics: JobMetrics) -> Iterator[Metric]:
    """The families of jobs."""
    counted = {
        "accepted": (metrics.accepted, "Jobs accepted"),
        "done": (metrics.done, "Jobs that ended with a result"),
        "retried": (metrics.retried, "Attempts after which a job waits again"),
        "cancelled": (metrics.cancelled, "Jobs cancelled"),
        "expired": (metrics.expired, "Jobs given up because they waited for too long"),
    }
    for name, (counter, meaning) in counted.items():
        family = CounterMetricFamily(f"salver_jobs_{name}", meaning, labels=("endpoint",))
        for endpoint, count in sorted(counter.items()):
            family.add_metric((endpoint,), count)
        yield family
    failed = CounterMetricFamily("salver_jobs_failed", "Jobs that failed", labels=("endpoint", "code"))
    for key, count in sorted(metrics.failed.items()):
        failed.add_metric(key, count)
    yield failed
    waiting = GaugeMetricFamily("salver_jobs_waiting", "Jobs waiting", labels=("endpoint",))
    running = GaugeMetricFamily("salver_jobs_running", "Jobs being run", labels=("endpoint",))
    age = GaugeMetricFamily("salver_jobs_age_seconds", "How long the oldest job has waited", labels=("endpoint",))
    for endpoint, row in sorted(metrics.backlogs.items()):
        for gauge, value in zip((waiting, running, age), row, strict=True):
            gauge.add_metric((endpoint,), value)
    yield from (waiting, running, age)
    deliveries = CounterMetricFamily("salver_job_deliveries", "Tries of webhooks", labels=("webhook", "outcome"))
    for key, count in sorted(metrics.deliveries.items()):
        deliveries.add_metric(key, count)
    yield deliveries
