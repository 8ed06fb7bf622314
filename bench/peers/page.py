"""What the bench found, as docs/performance.md shows it."""

import own
import setting

LEVEL = 1.05
"""A ratio up to here is no lead: two runs of one server differ as much."""
TITLES = {
    "digits": "Digits: 64 numbers in, a label and ten probabilities out",
    "noop": "No-op: the same numbers in, one of them out",
    "minilm": "MiniLM: a text in, 384 numbers out",
    "grpc": "Digits over gRPC, unary ModelInfer, `h2load`; of Triton's a ratio of at most 0.67 is aimed at",
}


def written(bench):
    given = bench.given
    lines = [f"{given.rounds} rounds, loads of {given.seconds} s.", ""]
    lines += settings(bench)
    lines += unable(bench)
    for model in tables(bench):
        lines += table(bench, model)
    lines += curves(bench)
    lines += verdict(bench)
    return lines


def settings(bench):
    lines = ["| server | version | given |", "|---|---|---|"]
    lines.append(f"| Salver | this commit | {own.SALVER.given} |")
    lines += [f"| {peer.title} | {peer.package} {bench.versions[peer.name]} | {peer.given} |" for peer in bench.peers]
    return [*lines, ""]


def unable(bench):
    if not bench.unable:
        return []
    lines = ["**Not measured:**", ""]
    return [*lines, *(f"- **{name}**: {reason}" for name, reason in bench.unable.items()), ""]


def tables(bench):
    """What there is a table of: each model, and the one that was asked over gRPC."""
    return [model for model in TITLES if cases(bench, model)]


def cases(bench, model):
    """The loads that Salver was measured with."""
    return [case[2] for case in bench.loads if case[0] == "before" and case[1] == model]


def ratios(bench, place, model, connections):
    """A server's rate in each round by the mean of Salver's before and after it."""
    before, after = (bench.loads["before", model, connections], bench.loads["after", model, connections])
    found = bench.loads.get((place, model, connections), [])
    return [
        one.rate_per_s / ((first.rate_per_s + last.rate_per_s) / 2)
        for one, first, last in zip(found, before, after, strict=False)
    ]


def table(bench, model):
    counts = cases(bench, model)
    names = " | ".join(counts)
    lines = [f"{TITLES[model]}. Ratio to Salver (each round), requests a second:", ""]
    lines += [f"| server | {names} |", "|---" * (len(counts) + 1) + "|"]
    lines.append(f"| Salver | {' | '.join(own_cell(bench, model, count) for count in counts)} |")
    entries = ([own.INLINE] if model == "noop" else []) + [peer for peer in bench.peers if model != "grpc" or peer.grpc]
    for entry in entries:
        cells = [cell(bench, entry.name, model, count) for count in counts]
        lines.append(f"| {entry.title} | {' | '.join(cells)} |")
    return [*lines, ""]


def own_cell(bench, model, count):
    """Salver's rate, and how far it was from itself between the beginning and the end of each round."""
    before, after = bench.loads["before", model, count], bench.loads["after", model, count]
    apart = ", ".join(f"{last.rate_per_s / first.rate_per_s:.2f}" for first, last in zip(before, after, strict=True))
    rate = setting.median([one.rate_per_s for one in before + after])
    return f"1 (after/before {apart}), {rate:,.0f}/s{errors(before + after)}"


def cell(bench, name, model, count):
    found = bench.loads.get((name, model, count))
    if not found:
        return "not measured"
    values = ratios(bench, name, model, count)
    rate = setting.median([one.rate_per_s for one in found])
    ratio = f"{setting.median(values):.2f}"
    bold = f"**{ratio}**" if setting.median(values) > LEVEL else ratio
    return f"{bold} ({', '.join(f'{value:.2f}' for value in values)}), {rate:,.0f}/s{errors(found)}"


def errors(loads):
    count = sum(one.errors for one in loads)
    return f", **{count:,} errors**" if count else ""


def peak(bench, peer):
    """The highest of a peer's median closed-loop rates on digits; 0 if it has none."""
    found = [loads for (place, model, _), loads in bench.loads.items() if (place, model) == (peer.name, "digits")]
    return max((setting.median([one.rate_per_s for one in loads]) for loads in found), default=0)


def curves(bench):
    if not bench.curve:
        return []
    lines = [
        "Open loop, digits, Poisson arrivals at 25, 50 and 75 % of each peer's own peak above, Salver at the same "
        "rates; latency from the intended send time, p50 / p99:",
        "",
        "| peer | rate | peer | Salver | p99 of the peer in Salver's |",
        "|---|---|---|---|---|",
    ]
    for peer in bench.peers:
        theirs, ours = bench.curve.get((peer.name, peer.name)), bench.curve.get((peer.name, "salver"))
        for share, one, other in zip((25, 50, 75), theirs or (), ours or (), strict=True):
            rate = f"{share} %, {peak(bench, peer) * share / 100:,.0f}/s"
            times = f"{one.p99_s / other.p99_s:.1f}"
            lines.append(f"| {peer.title} | {rate} | {wait(one)} | {wait(other)} | {times} |")
    found = [one for climb in bench.curve.values() for one in climb]
    if any(one.behind for one in found):
        lines += ["", "\\* Answered fewer than were sent: the longer the load, the longer the wait."]
    if any(one.late for one in found):
        lines += ["", "\\*\\* The generator itself was more than 10 ms late (p99)."]
    return [*lines, ""]


def wait(found):
    marks = "\\*" * found.behind + "\\*\\*" * found.late
    return f"{found.p50_s * 1e3:.2f} / {found.p99_s * 1e3:.2f} ms{marks}{errors([found])}"


def verdict(bench):
    """Whether Salver is first in every column, and where it is not."""
    found = [
        (setting.median(values), f"{peer.title} on {model}, {count} ({setting.median(values):.2f})")
        for model in tables(bench)
        for count in cases(bench, model)
        for peer in bench.peers
        if (values := ratios(bench, peer.name, model, count))
    ]
    ahead = [name for ratio, name in found if ratio > LEVEL]
    level = [name for ratio, name in found if 2 - LEVEL <= ratio <= LEVEL]
    lines = [f"**Ahead of Salver: {'; '.join(ahead)}.**" if ahead else "No peer is ahead of Salver in any column."]
    return [*lines, f"Level with it, within 5 %: {'; '.join(level)}."] if level else lines
