from __future__ import annotations

import msgspec
import pytest

from salver.cli.checking import _judge, _Measured, _Wanted
from salver.loadgen import Latency, LoadReport
from salver.protocol.verdict import Verdict

LATENCY = Latency(0.002, 0.002, 0.003, 0.004, 0.01, 0.02, 0.03, True)
REPORT = LoadReport(
    url="http://127.0.0.1:1",
    path="/v2/models/candidate/infer",
    mode="open",
    connections=32,
    arrivals="poisson",
    rate_per_s=100.0,
    warmup_s=1.0,
    measured_s=5.0,
    sent=500,
    ok=500,
    failed=0,
    unanswered=0,
    within_s=0.0,
    within=None,
    errors={},
    words={},
    achieved_rate_per_s=100.0,
    latency=LATENCY,
    refusals=None,
    histogram=(),
    lateness=None,
    backlog_max=0,
    reconnects=0,
    connect_failures=0,
    generator_cpu_ratio=0.2,
    interrupted=False,
)
WANTED = _Wanted(100.0, 5.0, None, None, None)


@pytest.mark.parametrize(
    ("report", "wanted", "verdict", "reason"),
    [
        ({}, {}, Verdict.SUCCESSFUL, "cold start 2 s"),
        ({}, {"cold_start_s": 1.0}, Verdict.FAILED, "cold start 2 s, above 1 s"),
        ({}, {"p99_s": 0.005}, Verdict.FAILED, "p99 0.01 s, above 0.005 s"),
        ({}, {"p99_s": 0.01, "cold_start_s": 2.0}, Verdict.SUCCESSFUL, "p99 0.01 s"),
        ({"failed": 1, "errors": {"503 OVERLOADED": 1}}, {}, Verdict.FAILED, "failed: 1 503 OVERLOADED"),
        # Fewer came than on average; it kept up with those.
        ({"sent": 420, "ok": 420, "achieved_rate_per_s": 84.0}, {}, Verdict.SUCCESSFUL, "cold start"),
        ({"achieved_rate_per_s": 80.0}, {}, Verdict.FAILED, "of 100 requests a second it answered 80"),
        ({"ok": 20, "sent": 20, "achieved_rate_per_s": 4.0}, {}, Verdict.INCONCLUSIVE, "only 20 requests"),
        ({"interrupted": True}, {}, Verdict.INCONCLUSIVE, "requests were answered"),
        ({"generator_cpu_ratio": 0.95, "achieved_rate_per_s": 50.0}, {}, Verdict.INCONCLUSIVE, "itself was the limit"),
    ],
)
def test_a_candidate_is_judged_by_what_came_of_what_it_was_sent(report, wanted, verdict, reason) -> None:
    measured = _Measured(2.0, 10**6, msgspec.structs.replace(REPORT, **report))
    fields = {name: getattr(WANTED, name) for name in WANTED.__dataclass_fields__}
    found = _judge(measured, _Wanted(**fields | wanted))
    assert found.verdict is verdict
    assert reason in " ".join(found.reasons)


def test_a_candidate_that_does_not_load_has_failed() -> None:
    found = _judge(_Measured(2.0, 0, problem="OUT_OF_MEMORY"), WANTED)
    assert (found.verdict, found.reasons) == (Verdict.FAILED, ("it did not load: OUT_OF_MEMORY",))
