"""What the response cache gains on identical requests, and what it costs where it never hits."""

import sys
import tempfile
from pathlib import Path

import report
import setting

PAIRS = 3
KEPT = ("--cache-bytes", "100000000", "--cache-ttl", "3600")
NAMES = {"inline": "cheap, on the event loop", "process": "in a worker"}


def measure(home, rows, seconds):
    """Lines of a table: hits, and misses that are all kept, against the same deployment without a cache."""
    body, headers = setting.json_body(rows[:1])
    anew = {**headers, "Cache-Control": "no-cache"}
    rates = {}
    with setting.served(home) as ready:
        for placement in NAMES:
            for kind, options in {"plain": (), "cached": KEPT}.items():
                words = ("--endpoint", f"{kind}-{placement}", "--placement", placement, *options, "--wait")
                setting.salver(home, "deploy", "digits", *words)
            loads = {"plain": ("plain", headers), "hit": ("cached", headers), "miss": ("cached", anew)}
            urls = {name: f"{ready['http']}/v2/models/{kind}-{placement}/infer" for name, (kind, _) in loads.items()}
            for name, (_, sent) in loads.items():
                setting.wrk(urls[name], body, sent, seconds=1)
            for turn in range(PAIRS):
                for name, (_, sent) in loads.items():
                    print(f"... cache, {placement}, pair {turn + 1} of {PAIRS}: {name}", file=sys.stderr, flush=True)
                    rate = setting.wrk(urls[name], body, sent, seconds=seconds)[0]
                    rates.setdefault((placement, name), []).append(rate)
        for placement in NAMES:
            for kind in ("plain", "cached"):
                setting.salver(home, "undeploy", f"{kind}-{placement}")
    return [
        "Response cache, `wrk -t1 -c64`, digits, JSON, the same row each time, medians of three interleaved pairs:",
        "",
        "| computes | no cache | kept answers | ratio (each pair) | all answered anew and kept | ratio (each pair) |",
        "|---|---|---|---|---|---|",
        *(_line(placement, rates) for placement in NAMES),
        "",
    ]


def _line(placement, rates):
    plain, hit, miss = (rates[placement, name] for name in ("plain", "hit", "miss"))
    cells = [NAMES[placement], f"{setting.median(plain):,.0f}"]
    for found in (hit, miss):
        ratios = [one / other for one, other in zip(found, plain, strict=True)]
        cells += [
            f"{setting.median(found):,.0f}",
            f"{setting.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
        ]
    return f"| {' | '.join(cells)} |"


def main():
    given = report.arguments(__doc__, seconds=4).parse_args()
    setting.need("wrk", "wrk")
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        home, rows = setting.digits_home(work)
        report.tell("cache", measure(home, rows, given.seconds), write=given.write)


if __name__ == "__main__":
    main()
