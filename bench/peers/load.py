"""Loads: closed loop by wrk, open loop by Salver's own generator. Both count errors instead of ending."""

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import setting
from running import UnableError

from salver.loadgen import Arrivals, LoadPlan, Mode, run_load

__all__ = ["Load", "calls", "closed", "opened"]

HEADERS = (("Content-Type", "application/json"),)
TIMEOUT_S = 10
LATE_S = 0.01
KEPT_UP = 0.95
# One body is sent as it is; of several, each connection sends one after the other.
SCRIPT = """
local bodies = %s
local requests, at = {}, 0
wrk.method, wrk.body = "POST", bodies[1]
wrk.headers["Content-Type"] = "application/json"
if #bodies > 1 then
  init = function() for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", nil, nil, body) end end
  request = function() at = at %% #requests + 1; return requests[at] end
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nFOUND {"requests": %%d, "micros": %%d, "status": %%d, "lost": %%d, "timeouts": %%d, ',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write, e.timeout))
  io.write(string.format('"p50": %%d, "p99": %%d}\\n', latency:percentile(50), latency:percentile(99)))
end
"""


@dataclasses.dataclass(frozen=True)
class Load:
    rate_per_s: float
    """Answers without an error."""
    p50_s: float
    p99_s: float
    errors: int
    behind: bool = False
    """The server answered fewer than were sent in that time: its latency grows with the length of the load."""
    late: bool = False
    """The generator itself sent late, so it did not ask as it was told."""


def closed(url, bodies, *, connections, seconds):
    """`connections` that each send their next request when the last is answered."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "load.lua")
        quoted = ", ".join(f"[==[{body.decode()}]==]" for body in bodies)
        script.write_text(SCRIPT % f"{{{quoted}}}")
        load = ["-t1", f"-c{connections}", f"-d{seconds}", "--timeout", f"{TIMEOUT_S}s", "--latency", "-s", script]
        done = subprocess.run(
            ["wrk", *load, url], capture_output=True, text=True, check=True, timeout=seconds + 4 * TIMEOUT_S
        )
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    good = found["requests"] - found["status"]
    errors = found["status"] + found["lost"] + found["timeouts"]
    return Load(good * 1e6 / found["micros"], found["p50"] / 1e6, found["p99"] / 1e6, errors)


def calls(url, body, *, connections, streams, seconds):
    """ModelInfer over gRPC in a closed loop, so many calls at a time on each connection."""
    try:
        rate = setting.h2load(url, body, connections=connections, streams=streams, seconds=seconds)
    except SystemExit as problem:
        raise UnableError(str(problem)) from problem
    return Load(rate, 0.0, 0.0, 0)


def opened(url, body, *, rate_per_s, seconds):
    """Poisson arrivals; latency counts from the moment a request was meant to leave, also of those given up."""
    parts = urlsplit(url)
    plan = LoadPlan(
        f"{parts.scheme}://{parts.netloc}",
        parts.path,
        body,
        HEADERS,
        mode=Mode.OPEN,
        arrivals=Arrivals.POISSON,
        rate_per_s=rate_per_s,
        connections=64,
        duration_s=seconds,
        warmup_s=0.5,
        timeout_s=TIMEOUT_S,
    )
    report = run_load(plan)
    late = report.lateness is not None and report.lateness.p99_s > LATE_S
    # Not by the wanted rate: so few Poisson arrivals are often a few percent more or fewer.
    behind = report.achieved_rate_per_s * report.measured_s < KEPT_UP * report.sent
    if report.latency is None:
        return Load(0.0, float("inf"), float("inf"), report.failed, behind, late)
    latency = report.latency
    return Load(report.achieved_rate_per_s, latency.p50_s, latency.p99_s, report.failed, behind, late)
