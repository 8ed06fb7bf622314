"""A request's way: throughput, latency, placements, start and memory, stages; ratios from one run."""

import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import report
import setting
import stages

from salver.loadgen import Arrivals, LoadPlan, Mode, run_load

PAIRS = 3
INFER = "/v2/models/digits/infer"


def main():
    given = report.arguments(__doc__, seconds=4).parse_args()
    setting.need("wrk", "wrk")
    setting.need("h2load", "nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        home, rows = setting.digits_home(work)
        setting.salver(home, "deploy", "digits", "--endpoint", "digits")
        lines = closed_loop(home, rows, given.seconds)
        lines += grpc_loop(home, rows, given.seconds)
        lines += open_loop(home, rows, given.seconds)
        lines += placements(home, rows, given.seconds)
        lines += start_and_memory(home, rows)
        lines += stage_table(home, rows)
    report.tell("measured", lines, write=given.write)


def show(text):
    print(f"... {text}", file=sys.stderr, flush=True)


def closed_loop(home, rows, seconds):
    """JSON against the echo, binary against JSON: interleaved pairs."""
    results = {"echo": [], "json1": [], "binary1": [], "json64": [], "binary64": []}
    one, many = rows[:1], rows[:64]
    with setting.served(home) as ready, setting.echo() as echo:
        loads = {
            "echo": (echo, *setting.json_body(one)),
            "json1": (ready["http"] + INFER, *setting.json_body(one)),
            "binary1": (ready["http"] + INFER, *setting.binary_body(one)),
            "json64": (ready["http"] + INFER, *setting.json_body(many)),
            "binary64": (ready["http"] + INFER, *setting.binary_body(many)),
        }
        for load in loads.values():
            setting.wrk(*load, seconds=1)
        for turn in range(PAIRS):
            for name, load in loads.items():
                show(f"closed loop, pair {turn + 1} of {PAIRS}: {name}")
                results[name].append(setting.wrk(*load, seconds=seconds)[0])
    ratios = pairwise(results["json1"], results["echo"])
    binary1 = pairwise(results["binary1"], results["json1"])
    binary64 = pairwise(results["binary64"], results["json64"])
    rate = {name: f"{setting.median(values):,.0f}" for name, values in results.items()}
    return [
        "`wrk -t1 -c64`, medians of three interleaved pairs, requests a second:",
        "",
        "| what | requests a second | ratio (each pair) | wanted | |",
        "|---|---|---|---|---|",
        f"| echo: reads the body, answers `{{}}` | {rate['echo']} | 1 | | |",
        f"| digits, JSON, 1 row | {rate['json1']} | {of(ratios)} of the echo | {at_least(ratios, 0.25)} |",
        f"| digits, binary, 1 row | {rate['binary1']} | {of(binary1)} of JSON | {at_least(binary1, 0.95)} |",
        f"| digits, JSON, 64 rows | {rate['json64']} | | | |",
        f"| digits, binary, 64 rows | {rate['binary64']} | {of(binary64)} of JSON | {at_least(binary64, 2)} |",
        "",
    ]


def grpc_loop(home, rows, seconds):
    """ModelInfer against an empty server of grpcio: interleaved pairs."""
    loads = {"-c16 -m1": {"connections": 16, "streams": 1}, "-c4 -m8": {"connections": 4, "streams": 8}}
    body = setting.grpc_message(rows[:1])
    results = {(who, load): [] for load in loads for who in ("empty", "digits")}
    with setting.served(home) as ready, setting.echo("grpc_echo.py") as empty:
        urls = {"empty": empty, "digits": f"http://{ready['grpc']}"}
        for turn in range(PAIRS):
            for (who, load), rates in results.items():
                show(f"gRPC {load}, pair {turn + 1} of {PAIRS}: {who}")
                rates.append(setting.h2load(urls[who], body, seconds=seconds, **loads[load]))
        # A gRPC error, too, comes with status 200.
        setting.require_successes(ready["http"], "digits", min(results["digits", "-c16 -m1"]) * seconds)
    lines = [
        "gRPC, unary ModelInfer, `h2load`, medians of three interleaved pairs, calls a second:",
        "",
        "| load | grpcio.aio, answers nothing | digits, 1 row | ratio (each pair) | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    for load in loads:
        ratios = pairwise(results["digits", load], results["empty", load])
        empty_rate, rate = (f"{setting.median(results[who, load]):,.0f}" for who in ("empty", "digits"))
        lines.append(f"| `{load}` | {empty_rate} | {rate} | {of(ratios)} of grpcio | {at_least(ratios, 3)} |")
    return [*lines, ""]


def pairwise(values, yardsticks):
    return [value / yardstick for value, yardstick in zip(values, yardsticks, strict=True)]


def of(ratios):
    """The median, and what it is the median of."""
    return f"{setting.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


def at_least(ratios, wanted):
    return f"at least {wanted} | {mark(setting.median(ratios) >= wanted)}"


def at_most(value, wanted, unit=""):
    return f"at most {wanted}{unit} | {mark(value <= wanted)}"


def mark(met):
    return "met" if met else "**missed**"


def open_loop(home, rows, seconds):
    """10 000 requests a second at constant pace, latency from the intended time."""
    body, headers = setting.json_body(rows[:1])
    found = {"echo": [], "digits": []}
    with setting.served(home) as ready, setting.echo() as echo:
        urls = {"echo": (echo, "/"), "digits": (ready["http"], INFER)}
        for turn in range(PAIRS):
            for name, (url, path) in urls.items():
                show(f"open loop, pair {turn + 1} of {PAIRS}: {name}")
                plan = LoadPlan(
                    url,
                    path,
                    body,
                    tuple(headers.items()),
                    mode=Mode.OPEN,
                    arrivals=Arrivals.CONSTANT,
                    rate_per_s=10_000,
                    connections=64,
                    duration_s=seconds,
                )
                found[name].append(run_load(plan))
    p99 = {name: [report.latency.p99_s for report in reports] for name, reports in found.items()}
    ratios = pairwise(p99["digits"], p99["echo"])
    rates = {
        name: setting.median([report.achieved_rate_per_s for report in reports]) for name, reports in found.items()
    }
    ms = {name: f"{setting.median(values) * 1e3:.2f} ms" for name, values in p99.items()}
    return [
        "Open loop at 10 000 requests a second, latency from the intended send time, medians of three pairs:",
        "",
        "| what | achieved rate | p99 | ratio (each pair) | wanted | |",
        "|---|---|---|---|---|---|",
        f"| echo | {rates['echo']:,.0f}/s | {ms['echo']} | 1 | | |",
        f"| digits, JSON | {rates['digits']:,.0f}/s | {ms['digits']} | {of(ratios)} of the echo's | "
        + f"{at_most(setting.median(ratios), 4)} |",
        "",
    ]


def placements(home, rows, seconds):
    """Each against the thread, in interleaved pairs."""
    body, headers = setting.json_body(rows[:1])
    names = ("thread", "inline", "process")
    rates = {name: [] for name in names}
    with setting.served(home) as ready:
        for name in names:
            setting.salver(home, "deploy", "digits", "--endpoint", f"digits-{name}", "--placement", name, "--wait")
            setting.wrk(f"{ready['http']}/v2/models/digits-{name}/infer", body, headers, seconds=1)
        for turn in range(PAIRS):
            for name in names:
                show(f"placements, pair {turn + 1} of {PAIRS}: {name}")
                url = f"{ready['http']}/v2/models/digits-{name}/infer"
                rates[name].append(setting.wrk(url, body, headers, seconds=seconds)[0])
        for name in names:
            setting.salver(home, "undeploy", f"digits-{name}")
    inline, process = (pairwise(rates[name], rates["thread"]) for name in ("inline", "process"))
    rate = {name: f"{setting.median(values):,.0f}" for name, values in rates.items()}
    return [
        "Placements, `wrk -t1 -c64`, JSON, 1 row, medians of three interleaved pairs:",
        "",
        "| placement | requests a second | ratio (each pair) | wanted | |",
        "|---|---|---|---|---|",
        f"| thread | {rate['thread']} | 1 | | |",
        f"| inline | {rate['inline']} | {of(inline)} of `thread` | | |",
        f"| process | {rate['process']} | {of(process)} of `thread` | {at_least(process, 0.4)} |",
        "",
    ]


def start_and_memory(home, rows):
    body, headers = setting.json_body(rows[:1])
    seconds = []
    for turn in range(PAIRS):
        show(f"start, {turn + 1} of {PAIRS}")
        with setting.served(home) as ready:
            request = urllib.request.Request(ready["http"] + INFER, body, headers)
            with urllib.request.urlopen(request) as answer:
                json.load(answer)
            seconds.append(time.perf_counter() - ready["began"])
            status = Path(f"/proc/{ready['pids']['servers'][0]}/status").read_text()
            resident = int(status.split("VmRSS:")[1].split()[0]) // 1024
    first_s = setting.median(seconds)
    return [
        "| what | measured | wanted | |",
        "|---|---|---|---|",
        f"| from starting `salver serve` to the first prediction | {first_s:.2f} s | {at_most(first_s, 1.5, ' s')} |",
        f"| the idle server process | {resident} MB | {at_most(resident, 150, ' MB')} |",
        "",
    ]


def stage_table(home, rows):
    show("stages")
    found = stages.run(home, rows)
    lines = [
        "Where a request's time goes, in process and without sockets (JSON, 1 row, batches of 64; the best of many):",
        "",
    ]
    lines += ["| stage | microseconds |", "|---|---|"]
    return [*lines, *(f"| {name} | {value:.2f} |" for name, value in found.items()), ""]


if __name__ == "__main__":
    main()
