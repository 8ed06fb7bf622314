"""Batching and admission: the simulator against the server, batching on against off, overload, and tenants.

python bench/batching.py [--only simulator,minilm,overload,tenants] [--write]
"""

import concurrent.futures
import itertools
import json
import re
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
from pathlib import Path

import bounds
import numpy as np
import report
import setting
from minilm import make_minilm

from salver.loadgen import Arrivals, LoadPlan, Mode, run_load
from salver.loadgen.arrivals import arrival_times
from salver.protocol.tables import BatchPolicy, DeploymentSpec
from salver.scaling.simulation import Arrival, simulate

ROOT = Path(__file__).parents[1]
JSON = (("content-type", "application/json"),)
SLEEPER = """
    import time
    import numpy as np
    import salver

    class Sleeper(salver.Model):
        inputs = (salver.TensorSpec("x", "FP32", (-1, 1)),)
        outputs = (salver.TensorSpec("y", "FP32", (-1, 1)),)

        def predict(self, inputs):
            time.sleep({fixed} + {each} * len(inputs["x"]))
            return {{"y": inputs["x"] * 2}}
"""


def main():
    arguments = report.arguments(__doc__, seconds=0)
    arguments.add_argument("--only", default="simulator,minilm,overload,tenants")
    given = arguments.parse_args()
    seconds = (given.seconds,) if given.seconds else ()
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        for name in given.only.split(","):
            report.tell(name, globals()[f"measure_{name}"](work, *seconds), write=given.write)


def show(text):
    print(f"... {text}", file=sys.stderr, flush=True)


# Models.


def sleeper(home, work, name, fixed, each):
    """A model in a worker that takes fixed + each * rows seconds and no processor."""
    folder = work / name
    folder.mkdir()
    (folder / "model.py").write_text(textwrap.dedent(SLEEPER.format(fixed=fixed, each=each)))
    (folder / "salver-model.toml").write_text('format = "python"\nentry = "model:Sleeper"\nwarm_up = true\n')
    setting.salver(home, "register", name, str(folder))


def ask_sleeper(value=1.0):
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}).encode()


def values_of(body):
    return np.array(json.loads(body)["outputs"][0]["data"])


def minilm(home, work, *, length):
    folder = make_minilm(work)
    name = "minilm" if length else "minilm-mixed"
    if not length:
        mixed = work / "mixed"
        mixed.mkdir()
        for file in folder.iterdir():
            (mixed / file.name).write_bytes(file.read_bytes())
        declared = mixed / "salver-model.toml"
        declared.write_text(declared.read_text().replace('length = "text"\n', ""))
        folder = mixed
    setting.salver(home, "register", name, str(folder))


def texts():
    """Sentences and paragraphs of this repository's pages, in an order that is no order."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        prose = re.sub(r"```.*?```|\|.*?\n|[#`*]", "", page.read_text(), flags=re.DOTALL)
        for paragraph in prose.split("\n\n"):
            flat = " ".join(paragraph.split())
            found += [flat, *re.split(r"(?<=[.:;]) ", flat)]
    found = sorted({text for text in found if 10 <= len(text) <= 1200})
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def ask_text(text):
    return json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]}).encode()


# Loads.


def load(
    url, endpoint, bodies, *, rate=None, connections=64, seconds=5, warmup=1.0, within=0.0, token=None, is_right=None
):
    headers = (*JSON, *([("authorization", f"Bearer {token}")] if token else []))
    plan = LoadPlan(
        url,
        f"/v2/models/{endpoint}/infer",
        bodies[0],
        headers,
        more_bodies=tuple(bodies[1:]),
        mode=Mode.OPEN if rate else Mode.CLOSED,
        arrivals=Arrivals.POISSON,
        rate_per_s=rate or 0.0,
        connections=connections,
        duration_s=seconds,
        warmup_s=warmup,
        within_s=within,
    )
    return run_load(plan, is_right=is_right)


def load_aside(*words):
    """The same from a process of its own: `salver bench`."""
    done = subprocess.run(
        [sys.executable, "-m", "salver", *words, "--json"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def busy_s(url, endpoint):
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    return float(re.search(rf'salver_busy_seconds_total{{endpoint="{endpoint}".*}} (.*)', text)[1])


def statistics(url, endpoint):
    with urllib.request.urlopen(f"{url}/v2/models/{endpoint}/stats") as answer:
        return json.load(answer)["model_stats"][0]


class Served:
    """What a server did between two looks: mean latency and rows a batch, and what batches took by their rows."""

    def __init__(self, before, after, busy_s):
        seconds = {name: self._delta(before, after, name) for name in before["inference_stats"]}
        self.answers, total_s = seconds["success"]
        self.mean_s = total_s / self.answers
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        batches = after["execution_count"] - before["execution_count"]
        self.rows = (after["inference_count"] - before["inference_count"]) / batches
        known = {row["batch_size"]: row for row in before["batch_stats"]}
        self.points, self.counts = {}, {}
        for row in after["batch_stats"]:
            old = known.get(row["batch_size"])
            count = row["compute_infer"]["count"] - (old["compute_infer"]["count"] if old else 0)
            if count:
                self.counts[row["batch_size"]] = count
                spent = sum(row[part]["ns"] - (old[part]["ns"] if old else 0) for part in parts[1:3])
                self.points[row["batch_size"]] = spent / count / 1e9
        # What a batch takes beside joining, computing and checking: the way to the model and back.
        computed_s = sum(seconds * self.counts[rows] for rows, seconds in self.points.items())
        way_s = max(0.0, (busy_s - computed_s) / batches)
        self.points = {rows: spent_s + way_s for rows, spent_s in self.points.items()}
        inside_s = sum(seconds[part][1] for part in parts[:3]) / self.answers + way_s
        self.outside_s = max(0.0, self.mean_s - inside_s)

    @staticmethod
    def _delta(before, after, name):
        old, new = before["inference_stats"][name], after["inference_stats"][name]
        return new["count"] - old["count"], (new["ns"] - old["ns"]) / 1e9


# The simulator against the server.

POLICIES = {
    "eager": [],
    "timeout": ["--max-wait", "0.02"],
    "hybrid": ["--max-wait", "0.02", "--min-batch", "4"],
    "predictive": [],
    "deferred": ["--slo", "0.1"],
}


def measure_simulator(work, seconds=15):
    lines = [
        "The simulator against the server, fed the service curve and the arrivals (Poisson) of the same run: a model "
        "in a worker that takes 8 ms + 1 ms a row, and MiniLM:",
        "",
        "| model and policy | requests a second | mean latency, server | simulated | rows a batch, server | simulated "
        "| wanted | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    home = work / "simulated"
    sleeper(home, work, "sleeper", 0.008, 0.001)
    minilm(home, work, length=False)
    setting.salver(home, "deploy", "sleeper", "--max-batch", "64")
    setting.salver(home, "deploy", "minilm-mixed", "--endpoint", "minilm", "--max-batch", "16")
    similar = [ask_text(text) for text in texts() if 60 <= len(text) <= 80][:64]
    with setting.served(home) as ready:
        most = load(ready["http"], "minilm", similar, connections=1, seconds=3).achieved_rate_per_s
        runs = [("sleeper", [ask_sleeper()], policy, rate) for policy in POLICIES for rate in (150, 400)]
        runs += [("minilm", similar, policy, round(most / 2)) for policy in ("eager", "timeout")]
        for endpoint, bodies, policy, rate in runs:
            show(f"simulator: {endpoint}, {policy}, {rate}/s")
            model = "minilm-mixed" if endpoint == "minilm" else endpoint
            settings = ["--policy", policy, "--max-wait", "0", "--min-batch", "1", "--slo", "0", *POLICIES[policy]]
            setting.salver(home, "deploy", model, "--endpoint", endpoint, "--wait", *settings)
            load(ready["http"], endpoint, bodies, rate=rate, seconds=1, warmup=0)
            before, busy_before_s = statistics(ready["http"], endpoint), busy_s(ready["http"], endpoint)
            load(ready["http"], endpoint, bodies, rate=rate, seconds=seconds, warmup=0)
            taken_s = busy_s(ready["http"], endpoint) - busy_before_s
            served = Served(before, statistics(ready["http"], endpoint), taken_s)
            spec = DeploymentSpec(
                endpoint,
                endpoint,
                "1.0.0",
                policy=BatchPolicy(policy),
                max_batch=64 if endpoint == "sleeper" else 16,
                max_wait_s=0.02 if policy in ("timeout", "hybrid") else 0.0,
                min_batch=4 if policy == "hybrid" else 1,
                slo_s=0.1 if policy == "deferred" else 0.0,
            )
            # The very arrivals that the server had.
            times = arrival_times(Arrivals.POISSON, rate, 0.0, np.random.default_rng(0))
            arrivals = [Arrival(at) for at in itertools.takewhile(lambda at: at < seconds, times)]
            found = simulate(spec, served.points, arrivals, overhead_s=served.outside_s)
            off = max(abs(found.mean_s / served.mean_s - 1), abs(found.mean_batch_rows / served.rows - 1))
            lines.append(
                f"| {endpoint}, `{policy}` | {rate} | {served.mean_s * 1e3:.2f} ms | {found.mean_s * 1e3:.2f} ms "
                f"| {served.rows:.2f} | {found.mean_batch_rows:.2f} | within 10 % "
                f"| {'met' if off <= 0.1 else '**missed**'} ({off:.0%}) |"
            )
    return [*lines, ""]


# Batching on against off.


def measure_minilm(work, seconds=6, pairs=3):
    home = work / "on-off"
    minilm(home, work, length=True)
    minilm(home, work / "second", length=False) if (work / "second").mkdir() is None else None
    settings = {
        "off": ("minilm", "--max-batch", "1"),
        "on": ("minilm-mixed", "--max-batch", "16"),
        "on, by length": ("minilm", "--max-batch", "16"),
    }
    for name, (model, *words) in settings.items():
        setting.salver(home, "deploy", model, "--endpoint", slug(name), *words)
    mixed = texts()[:256]
    loads = {"similar, 60-80 characters": [t for t in texts() if 60 <= len(t) <= 80][:64], "mixed, 10-1200": mixed}
    lines = [
        "MiniLM (8 bits, real tokenizer, one thread in a worker), text over HTTP, 32 connections, medians of "
        f"{pairs} interleaved rounds:",
        "",
        "| texts | batching | requests a second | ratio to off (each round) | p99 |",
        "|---|---|---|---|---|",
    ]
    with setting.served(home) as ready:
        for kind, chosen in loads.items():
            bodies = [ask_text(text) for text in chosen]
            reports = {name: [] for name in settings}
            for turn in range(pairs):
                for name in settings:
                    show(f"MiniLM {kind}, round {turn + 1} of {pairs}: {name}")
                    reports[name].append(load(ready["http"], slug(name), bodies, connections=32, seconds=seconds))
            rates = {name: [report.achieved_rate_per_s for report in each] for name, each in reports.items()}
            for name, each in reports.items():
                ratios = [rate / off for rate, off in zip(rates[name], rates["off"], strict=True)]
                of = f"{setting.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
                p99 = setting.median([report.latency.p99_s for report in each]) * 1e3
                lines.append(f"| {kind} | {name} | {setting.median(rates[name]):,.0f} | {of} | {p99:,.0f} ms |")
    return [*lines, ""]


def slug(name):
    return re.sub(r"[^a-z]+", "-", name)


# Overload.


def judge(url, endpoint, bodies):
    """Whether an answer to the request of a number is right, by what that request is answered alone.

    Of embeddings the direction counts: the scale of a batch of 8 bits depends on all its texts.
    """
    expected = []
    for body in bodies:
        asked = urllib.request.Request(f"{url}/v2/models/{endpoint}/infer", body, dict(JSON))
        with urllib.request.urlopen(asked) as answer:
            expected.append(values_of(answer.read()))

    def is_right(number, body):
        found, wanted = values_of(body), expected[number]
        if len(wanted) == 1:
            return found == wanted
        return found @ wanted >= 0.97 * np.linalg.norm(found) * np.linalg.norm(wanted)

    return is_right


def measure_overload(work, seconds=5):
    home = work / "overload"
    sleeper(home, work, "slow", 0.005, 0.001)
    minilm(home, work, length=True)
    cases = {
        "slow": ([ask_sleeper(float(value)) for value in range(128)], 0.1),
        "minilm": ([ask_text(t) for t in texts() if 30 <= len(t) <= 120][:128], 0.25),
    }
    for name, (_, slo) in cases.items():
        setting.salver(home, "deploy", name, "--max-batch", "64", "--slo", str(slo))
        setting.salver(home, "deploy", name, "--endpoint", f"{name}-peak", "--max-batch", "64")
    with setting.served(home) as ready, setting.echo() as echo:
        found = [overload_of(ready["http"], echo, name, *case, seconds) for name, case in cases.items()]
    return [line for lines in found for line in lines]


def overload_of(url, echo, name, bodies, slo, seconds):
    show(f"overload: what {name} can do")
    is_right = judge(url, f"{name}-peak", bodies)
    most = load(url, f"{name}-peak", bodies, connections=64, seconds=seconds).achieved_rate_per_s
    lines = [
        f"Overload of `{name}` (objective {slo * 1e3:.0f} ms, closed-loop peak {most:,.0f} a second), Poisson, latency "
        "from the intended send time:",
        "",
        "| offered | right and in time, a second | refused | p99 of answers | p99 of refusals | echo's p99 "
        "| generator |",
        "|---|---|---|---|---|---|---|",
    ]
    goodput, worst, wrong, busiest = [], (0.0, 0.0), 0, 0.0
    for factor in (0.5, 0.8, 1, 1.5, 2, 3, 5):
        show(f"overload: {name} at {factor} x")
        rate = factor * most
        plain = run_load(
            LoadPlan(echo, "/", bodies[0], JSON, mode=Mode.OPEN, rate_per_s=rate, duration_s=2, connections=256)
        )
        settings = {"rate": rate, "connections": 512, "seconds": seconds, "within": slo}
        loaded = load(url, name, bodies, **settings, is_right=is_right)
        goodput.append(loaded.within / loaded.measured_s)
        wrong += loaded.errors.get("WRONG_ANSWER", 0)
        busiest = max(busiest, loaded.generator_cpu_ratio)
        refused = loaded.refusals
        if refused:
            worst = max(worst, (refused.p99_s, plain.latency.p99_s))
        lines.append(
            f"| {factor} x = {rate:,.0f}/s | {goodput[-1]:,.0f} | {sum(loaded.errors.values()) / loaded.sent:.0%} "
            f"| {loaded.latency.p99_s * 1e3:.1f} ms | {f'{refused.p99_s * 1e3:.2f} ms' if refused else '-'} "
            f"| {plain.latency.p99_s * 1e3:.2f} ms | {loaded.generator_cpu_ratio:.0%} of a processor |"
        )
    share, allowed = goodput[-1] / max(goodput), max(0.010, 3 * worst[1])
    return [
        *lines,
        "",
        f"Goodput at 5 x is {share:.0%} of its peak (wanted: at least 85 %, {verdict(share >= 0.85)}); the slowest p99 "
        f"of refusals is {worst[0] * 1e3:.2f} ms (wanted: at most {allowed * 1e3:.1f} ms, "
        f"{verdict(worst[0] <= allowed)}). {wrong} answers were wrong (wanted: 0, {verdict(wrong == 0)}); the "
        f"generator took {busiest:.0%} of a processor at most (wanted: under 50 %, {verdict(busiest < 0.5)}).",
        "",
    ]


def verdict(met):
    return "met" if met else "**missed**"


# Tenants.


def measure_tenants(work, seconds=10, pairs=6):
    home = work / "tenants"
    sleeper(home, work, "shared", 0.002, 0.0002)
    setting.salver(home, "deploy", "shared", "--max-batch", "64")
    tokens = {}
    for tenant in ("steady", "greedy"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "salver",
                "--home",
                str(home),
                "token",
                "create",
                tenant,
                "--role",
                "predictor",
                "--tenant",
                tenant,
                "--json",
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        tokens[tenant] = json.loads(done.stdout)["token"]
    with setting.served(home) as ready:
        most = load(ready["http"], "shared", [ask_sleeper()], connections=128, seconds=3).achieved_rate_per_s
        rate = most / 4 / 11

        def both(greedy_rate, greedy_token):
            with concurrent.futures.ThreadPoolExecutor() as pool:
                words = ["--home", str(home), "bench", "shared", "--warmup", "1", "--duration", str(seconds)]
                steady = pool.submit(load_aside, *words, "--rate", str(rate), "--token", tokens["steady"])
                greedy = pool.submit(
                    load_aside,
                    *words,
                    "--rate",
                    str(greedy_rate),
                    "--seed",
                    "1",
                    "--connections",
                    "512",
                    "--token",
                    greedy_token,
                )
                greedy.result()
                return steady.result()["latency"]["p99_s"]

        usual, tenfold = [], []
        for turn in range(pairs):
            show(f"tenants, pair {turn + 1} of {pairs}")
            usual.append(both(rate, tokens["greedy"]))
            tenfold.append(both(10 * rate, tokens["greedy"]))
        show("tenants: beyond what the model can do")
        fair, unfair = both(3 * most, tokens["greedy"]), both(3 * most, tokens["steady"])
    text, _ = bounds.relative(usual, tenfold, 1.3)
    return [
        f"Two tenants of one model, {rate:,.0f} requests a second each; then one sends ten times as much (a quarter "
        f"of what the model can do, together). p99 of the other, {pairs} interleaved pairs:",
        "",
        "| p99 at its side | with the other at ten times | ratio (95 % interval) | A/A spread | wanted | |",
        "|---|---|---|---|---|---|",
        f"| {setting.median(usual) * 1e3:.1f} ms | {setting.median(tenfold) * 1e3:.1f} ms | {text} |",
        "",
        f"With the other at three times what the model can do, its p99 is {fair * 1e3:.0f} ms; as part of the same "
        f"tenant it would be {unfair * 1e3:.0f} ms.",
        "",
    ]


if __name__ == "__main__":
    main()
