"""A load report as text for people."""

from __future__ import annotations

import textwrap
from typing import Final

from salver.loadgen.report import LoadReport

__all__ = ["render_report"]

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_PERCENTILES: Final = (("p50", "p50_s"), ("p90", "p90_s"), ("p95", "p95_s"), ("p99", "p99_s"), ("p99.9", "p999_s"))


def render_report(report: LoadReport, *, width: int = 80) -> str:
    """The report in lines of at most `width` columns (at least 40), with the latencies as bars."""
    lines = [_headline(report), _counts(report)]
    for name, count in sorted(report.errors.items(), key=lambda item: -item[1]):
        lines.append(f"  {name}: {count}")
        lines += textwrap.wrap(
            report.words.get(name, ""), max(width, 40), initial_indent="    ", subsequent_indent="    "
        )
    lines += _in_time(report)
    latency = report.latency
    if latency is not None:
        about = "" if latency.exact else " (of a uniform sample; max is exact)"
        lines += ["", "latency from the intended send time" + about]
        named = [f"{name} {_duration(getattr(latency, field))}" for name, field in _PERCENTILES]
        lines += ["  " + "  ".join(named), f"  mean {_duration(latency.mean_s)}  max {_duration(latency.max_s)}", ""]
        lines += _bars(report, max(width, 40))
    lines.append("")
    if report.lateness is not None:
        late = report.lateness
        lines.append(f"the generator was late by p50 {_duration(late.p50_s)}, p99 {_duration(late.p99_s)}")
    lines.append(f"the generator used {report.generator_cpu_ratio:.0%} of one processor")
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _in_time(report: LoadReport) -> list[str]:
    """How the objective was kept, and how soon refusals came."""
    lines = []
    if report.within is not None:
        share = report.within / report.sent if report.sent else 0.0
        rate = report.within / report.measured_s if report.measured_s else 0.0
        lines.append(f"within {_duration(report.within_s)}: {report.within} ({share:.1%}), {rate:,.0f} a second")
    if report.refusals is not None:
        lines.append(f"refusals p50 {_duration(report.refusals.p50_s)}  p99 {_duration(report.refusals.p99_s)}")
    return lines


def _headline(report: LoadReport) -> str:
    how = f"{report.connections} connections, each in turn"
    if report.rate_per_s is not None:
        how = f"{report.rate_per_s:g} requests a second ({report.arrivals}) on {report.connections} connections"
    stopped = ", interrupted" if report.interrupted else ""
    return f"{report.mode} loop: {how}; {report.measured_s:.1f} s{stopped}"


def _counts(report: LoadReport) -> str:
    left = f", {report.unanswered} unanswered" if report.unanswered else ""
    return (
        f"{report.achieved_rate_per_s:,.0f} answers a second; "
        f"{report.sent} sent, {report.ok} ok, {report.failed} failed{left}"
    )


def _bars(report: LoadReport, width: int) -> list[str]:
    most = max(bucket.count for bucket in report.histogram)
    room = width - 22
    return [
        f"  ≤ {_duration(bucket.upto_s):>8}  {bucket.count:>7} {_bar(bucket.count / most, room)}".rstrip()
        for bucket in report.histogram
    ]


def _bar(share: float, room: int) -> str:
    eighths = round(share * room * 8)
    if share > 0 and eighths == 0:
        eighths = 1  # something happened: show it
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else "1.00 s"
    return f"{seconds * 1e6:.3g} µs"
