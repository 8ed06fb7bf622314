"""Jobs: how many a second are accepted and how soon, and how many a second go all the way through."""

import asyncio
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import report
import setting

TARGET = "10,000 to 100,000 a second, p99 under 100 ms"
"""What the field asks of an accept path, on hardware of its own."""


class Open:
    """An open loop over HTTP: requests are sent when they are due, whether or not earlier ones are answered.

    Latency counts from the moment a request was due. Each connection sends one request at a time.
    """

    def __init__(self, url, body, connections):
        self._host, self._port = url.removeprefix("http://").split(":")
        head = "POST /v2/models/digits/jobs HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        self._request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self._connections = connections

    async def run(self, rate, seconds, seed=0):
        """(accepted a second, latencies in seconds, sorted) at Poisson arrivals of `rate`."""
        gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
        due = np.cumsum(gaps) + time.perf_counter() + 0.05
        numbers = iter(range(len(due)))
        latencies = []

        async def client():
            reader, writer = await asyncio.open_connection(self._host, self._port)
            for number in numbers:
                pause = due[number] - time.perf_counter()
                if pause > 0:
                    await asyncio.sleep(pause)
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 202"):
                    raise SystemExit(f"a job was not accepted: {head.decode()}")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                latencies.append(time.perf_counter() - due[number])
            writer.close()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(self._connections)))
        return len(latencies) / (time.perf_counter() - began), sorted(latencies)


def counted(url, name):
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def drained(url):
    """Wait until no job waits or runs."""
    while counted(url, "salver_jobs_done_total") < counted(url, "salver_jobs_accepted_total"):
        time.sleep(0.1)


def measure(home, rows, seconds):
    """Lines of a table: the accept rate in a closed loop, latencies in open ones, and the rate end to end."""
    import uvloop

    body, headers = setting.json_body(rows[:1])
    setting.salver(home, "deploy", "digits", "--placement", "auto")
    with setting.served(home) as ready:
        url = ready["http"]
        setting.wrk(f"{url}/v2/models/digits/jobs", body, headers, seconds=1)
        drained(url)
        print("... jobs: accepted and run", file=sys.stderr, flush=True)
        began, before = time.perf_counter(), counted(url, "salver_jobs_done_total")
        accepted, slow_s = setting.wrk(f"{url}/v2/models/digits/jobs", body, headers, seconds=seconds)
        drained(url)
        through = (counted(url, "salver_jobs_done_total") - before) / (time.perf_counter() - began)
        online, _ = setting.wrk(f"{url}/v2/models/digits/infer", body, headers, seconds=seconds)
        print("... jobs: many connections", file=sys.stderr, flush=True)
        crowd, crowd_s = setting.wrk(f"{url}/v2/models/digits/jobs", body, headers, connections=256, seconds=seconds)
        drained(url)
        lines = []
        for share in (0.1, 0.25, 0.5):
            rate = accepted * share
            print(f"... jobs: open loop at {rate:,.0f} a second", file=sys.stderr, flush=True)
            reached, latencies = uvloop.run(Open(url, body, 64).run(rate, seconds))
            drained(url)
            p50, p99 = (latencies[int(len(latencies) * at)] * 1e3 for at in (0.5, 0.99))
            lines.append(f"| open loop, {rate:,.0f} a second offered | {reached:,.0f} | {p50:.1f} | {p99:.1f} |")
    return [
        "Jobs, digits, JSON, one row each; every accept is fsynced before its answer, and jobs run meanwhile.",
        f"The field's target for accepting is {TARGET}.",
        "",
        "| load | accepted a second | p50, ms | p99, ms |",
        "|---|---|---|---|",
        f"| closed loop, 64 connections | {accepted:,.0f} | | {slow_s * 1e3:.1f} |",
        f"| closed loop, 256 connections | {crowd:,.0f} | | {crowd_s * 1e3:.1f} |",
        *lines,
        "",
        f"End to end, accepted, run and recorded: {through:,.0f} jobs a second, {through / online:.2f} of the "
        f"{online:,.0f} predictions a second that the same requests reach without being kept.",
        "",
    ]


def main():
    given = report.arguments(__doc__, seconds=4).parse_args()
    setting.need("wrk", "wrk")
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        work = Path(folder)
        home, rows = setting.digits_home(work)
        report.tell("jobs", measure(home, rows, given.seconds), write=given.write)


if __name__ == "__main__":
    main()
