"""Counters of the data path, kept as plain numbers and rendered only when somebody scrapes.

Successes are counted once per batch, refusals and failures as they happen. Endpoints and versions come from
the published tables only; what a client merely names is counted under `other`, so that labels
stay few.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from salver.stats.histogram import HistogramCounter
from salver.telemetry.job_metrics import JobMetrics

__all__ = [
    "UNKNOWN_ENDPOINT",
    "CacheCounts",
    "LoadCounts",
    "Metrics",
    "SessionCounts",
    "StreamCounts",
    "VersionMetrics",
]

UNKNOWN_ENDPOINT = "other"


class CacheCounts:
    """What the cache in front of a version did. Every request that it takes is one hit, miss or shared."""

    __slots__ = ("evictions", "hit_s", "hits", "miss_s", "misses", "shared")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.shared = 0
        """Requests that waited for the answer to an identical one."""
        self.evictions = 0
        """Answers that had to make room."""
        self.hit_s = 0.0
        """Seconds that looking up took for hits."""
        self.miss_s = 0.0
        """Seconds that looking up and keeping took for misses."""


class StreamCounts:
    """What the streams of a version did."""

    __slots__ = ("cancelled", "chunks", "first_chunk_s", "opened")

    def __init__(self) -> None:
        self.opened = 0
        self.chunks = 0
        self.cancelled = 0
        """Streams that were closed before their end because the client had gone."""
        self.first_chunk_s = HistogramCounter()
        """Seconds from reception to the first chunk."""

    def chunk(self, first_s: float | None) -> None:
        """Count a chunk; `first_s` is what the first one of a stream took."""
        self.chunks += 1
        if first_s is not None:
            self.first_chunk_s.add(first_s)


class LoadCounts:
    """How often a version came and went."""

    __slots__ = ("cold_starts", "loads", "seconds", "unloads")

    def __init__(self) -> None:
        self.loads = 0
        self.seconds = 0.0
        """That loads took, waiting for memory or for other loads included."""
        self.unloads = 0
        self.cold_starts = 0
        """Loads that a request had to wait for."""


class SessionCounts:
    """What became of the sessions of a version."""

    __slots__ = ("begun", "ended", "expired", "lost")

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        """By their clients."""
        self.expired = 0
        """Because nobody asked for them any more."""
        self.lost = 0
        """With their state, or because their version was replaced."""


class VersionMetrics:
    """What one version did behind one endpoint, in seconds and counts."""

    __slots__ = (
        "batch_input_seconds",
        "batch_output_seconds",
        "batch_seconds",
        "batches",
        "busy_s",
        "cache",
        "compute_s",
        "computed",
        "fail_s",
        "failures",
        "input_s",
        "last_success_wall_s",
        "loading",
        "output_s",
        "outside_profile",
        "queue_s",
        "request_s",
        "rows",
        "sessions",
        "streams",
        "successes",
    )

    def __init__(self) -> None:
        self.successes = 0
        self.computed = 0
        """Requests that a batch was run for and answered; the successes without them came from the cache."""
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.fail_s = 0.0
        self.queue_s = HistogramCounter()
        """Seconds that requests waited in the queue."""
        self.compute_s = 0.0
        """Seconds that batches ran, counted once for each of a batch's requests."""
        self.input_s = 0.0
        """Likewise, seconds from the queue to the model: joining, and holding against the profile."""
        self.busy_s = 0.0
        """Seconds that replicas were taken by batches, from the queue until they were free again."""
        self.output_s = 0.0
        """Likewise, seconds from the model to the answers: checking, and cutting into responses."""
        self.request_s = HistogramCounter()
        """Seconds from reception to answer."""
        self.batches: Counter[int] = Counter()
        """Batches by their number of rows; a stream is one."""
        self.batch_seconds: defaultdict[int, float] = defaultdict(float)
        """Seconds that batches ran, by their number of rows; the two others likewise."""
        self.batch_input_seconds: defaultdict[int, float] = defaultdict(float)
        self.batch_output_seconds: defaultdict[int, float] = defaultdict(float)
        self.last_success_wall_s = 0.0
        self.outside_profile = 0
        self.cache: CacheCounts | None = None
        """None for a version that never had one."""
        self.sessions: SessionCounts | None = None
        """None for a version that keeps no state."""
        self.streams = StreamCounts()
        self.loading = LoadCounts()

    def batch_done(
        self,
        rows: int,
        input_s: float,
        compute_s: float,
        output_s: float,
        waits_s: Sequence[float],
        latencies_s: Sequence[float],
        wall_s: float,
    ) -> None:
        """Count a batch that was answered; waits and latencies have one element for each of its requests."""
        self.batches[rows] += 1
        self.batch_input_seconds[rows] += input_s
        self.batch_seconds[rows] += compute_s
        self.batch_output_seconds[rows] += output_s
        self.rows += rows
        self.last_success_wall_s = wall_s
        requests = len(latencies_s)
        self.request_s.add_all(latencies_s)
        self.successes += requests
        self.computed += requests
        self.queue_s.add_all(waits_s)
        self.input_s += input_s * requests
        self.compute_s += compute_s * requests
        self.output_s += output_s * requests

    def answered(self, seconds: float) -> None:
        """Count one request that was answered without a batch of its own."""
        self.successes += 1
        self.request_s.add(seconds)

    def streamed(self, rows: int, compute_s: float, seconds: float, wall_s: float) -> None:
        """Count one stream that came to its end: it is a batch of its own, and no other stream's rows are in it."""
        self.answered(seconds)
        self.computed += 1
        self.batches[rows] += 1
        self.batch_seconds[rows] += compute_s
        self.rows += rows
        self.compute_s += compute_s
        self.last_success_wall_s = wall_s

    def failed(self, code: str, seconds: float = 0.0) -> None:
        """Count one request that was accepted and then failed."""
        self.failures[code] += 1
        self.fail_s += seconds

    def withdrawn(self, code: str, seconds: float = 0.0) -> None:
        """Take back a failure that nobody was told of: whoever still waits is answered otherwise."""
        self.failures[code] -= 1
        self.fail_s -= seconds

    def unwritten(self, code: str, seconds: float = 0.0) -> None:
        """Count one request as failed after all: its batch was counted, and its answer could not be written.

        The rows ran and took their time, so sums of rows and seconds stay. To be called as soon as that is
        known: whoever scrapes before sees one success more than there will be.
        """
        self.successes -= 1
        self.failed(code, seconds)


class Metrics:
    """All counters of one server process."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], VersionMetrics] = {}
        self.refusals: Counter[tuple[str, str]] = Counter()
        """Requests refused before they reached a version, by (endpoint, code)."""
        self.jobs = JobMetrics()
        self.connections = 0
        self.connections_total = 0
        self.accept_pauses = 0
        self.loop_lag_s = 0.0
        self.insecure = False

    def version(self, endpoint: str, version: str) -> VersionMetrics:
        """The counters of a version behind an endpoint, made on first use."""
        key = (endpoint, version)
        found = self.versions.get(key)
        if found is None:
            found = self.versions[key] = VersionMetrics()
        return found

    def refused(self, endpoint: str | None, code: str) -> None:
        """Count a refusal; `endpoint` is None where the client named none that exists."""
        self.refusals[endpoint or UNKNOWN_ENDPOINT, code] += 1
