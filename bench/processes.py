"""What a second server process gains on a machine of two processors, the load generator on the same two."""

import sys
import tempfile
from pathlib import Path

import report
import setting

PAIRS = 5
LOADS = {"cheap": "digits, on the event loop", "worker": "digits, in a worker of each process"}


def measure(home, rows, seconds):
    """Lines of a table: one server process against two, interleaved."""
    body, headers = setting.json_body(rows[:1])
    for name, words in {"cheap": (), "worker": ("--placement", "process")}.items():
        setting.salver(home, "deploy", "digits", "--endpoint", f"processes-{name}", *words)
    rates = {(count, name): [] for count in (1, 2) for name in LOADS}
    cores = {key: [] for key in rates}
    for turn in range(PAIRS):
        for count in (1, 2):
            with setting.served(home, "--processes", str(count)) as ready:
                for name in LOADS:
                    print(f"... processes, pair {turn + 1} of {PAIRS}: {count}, {name}", file=sys.stderr, flush=True)
                    url = f"{ready['http']}/v2/models/processes-{name}/infer"
                    setting.wrk(url, body, headers, seconds=1)
                    before_s = spent_s(ready)
                    rates[count, name].append(setting.wrk(url, body, headers, seconds=seconds)[0])
                    cores[count, name].append((spent_s(ready) - before_s) / seconds)
    for name in LOADS:
        setting.salver(home, "undeploy", f"processes-{name}")
    return [
        "Server processes, `wrk -t1 -c64`, JSON, one row, medians of five interleaved pairs. The machine has two",
        "processors, and the load generator takes part of one of them:",
        "",
        "| computes | `--processes 1` | cores it took | `--processes 2` | cores they took | ratio (each pair) |",
        "|---|---|---|---|---|---|",
        *(_line(name, rates, cores) for name in LOADS),
        "",
    ]


def spent_s(ready):
    """Processor seconds of the server processes and their workers so far."""
    import psutil

    found = [psutil.Process(pid) for pid in ready["pids"]["servers"]]
    found += [worker for server in found for worker in server.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in found)


def _line(name, rates, cores):
    one, two = rates[1, name], rates[2, name]
    ratios = [both / alone for alone, both in zip(one, two, strict=True)]
    cells = [LOADS[name]]
    for count in (1, 2):
        cells += [f"{setting.median(rates[count, name]):,.0f}", f"{setting.median(cores[count, name]):.2f}"]
    cells.append(f"{setting.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    return f"| {' | '.join(cells)} |"


def main():
    given = report.arguments(__doc__, seconds=4).parse_args()
    setting.need("wrk", "wrk")
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        home, rows = setting.digits_home(work)
        report.tell("processes", measure(home, rows, given.seconds), write=given.write)


if __name__ == "__main__":
    main()
