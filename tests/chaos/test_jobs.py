"""Jobs under fire: every job that was accepted ends once, right, whoever is killed meanwhile. `make test-chaos`."""

import asyncio
import collections
import contextlib
import itertools
import json
import os
import random
import signal
import urllib.request

import pytest
from tests.chaos.test_drills import FACTORS, children, home, serves

import salver

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

__all__ = ["home"]


def post(url, value, key):
    body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [value]}]}
    headers = {"content-type": "application/json", "idempotency-key": key}
    request = urllib.request.Request(f"{url}/v2/models/linear/jobs", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["id"]


def get(url, path):
    with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
        return json.load(answer)


class Submitters:
    """Clients that submit without pause, and submit again under the same key what they heard no answer to."""

    def __init__(self, url, count=4):
        self.url = url
        self.accepted = {}
        self.errors = collections.Counter()
        self._numbers = itertools.count(1)
        self._stopped = False
        self._tasks = [asyncio.ensure_future(self._submit()) for _ in range(count)]

    async def _submit(self):
        while not self._stopped:
            number = next(self._numbers)
            while True:
                try:
                    self.accepted[number] = await asyncio.to_thread(post, self.url, float(number), f"key-{number}")
                    break
                except OSError as error:
                    self.errors[type(error).__name__] += 1
                    await asyncio.sleep(0.02)

    async def stop(self):
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def at_least(self, more):
        goal = len(self.accepted) + more
        async with asyncio.timeout(60):
            while len(self.accepted) < goal:
                await asyncio.sleep(0.01)


def drill(home, capsys, name, act, **environment):
    async def run():
        async with salver.Server(home=home, environment=environment) as server:
            submitters = Submitters(server.http)
            await submitters.at_least(20)
            await act(server, submitters)
            await serves(server)
            await submitters.stop()
            outcomes = collections.Counter()
            for number, job in submitters.accepted.items():
                async with asyncio.timeout(120):
                    while (shown := await asyncio.to_thread(get, server.http, f"/v2/jobs/{job}"))["state"] != "done":
                        assert shown["state"] in ("queued", "running"), shown
                        await asyncio.sleep(0.05)
                result = await asyncio.to_thread(get, server.http, f"/v2/jobs/{job}/result")
                assert result["outputs"][0]["data"] == [FACTORS["1.0.0"] * number]
                outcomes[f"done in {shown['attempts']}"] += 1
            listed, after = 0, ""
            while after is not None:
                page = await asyncio.to_thread(get, server.http, f"/v2/jobs?limit=1000{after and f'&after={after}'}")
                listed, after = listed + len(page["jobs"]), page["next"]
        return submitters, outcomes, listed

    submitters, outcomes, listed = asyncio.run(run())
    with capsys.disabled():
        print(f"\n{name}: {len(submitters.accepted)} jobs, {dict(outcomes)}, clients met {dict(submitters.errors)}")
    assert len(set(submitters.accepted.values())) == len(submitters.accepted) == listed
    return outcomes


@pytest.mark.parametrize("module", ["processes.server", "processes.controller"])
def test_processes_killed_at_random_moments_lose_no_job_and_double_none(home, capsys, module):
    moments = random.Random(3)

    async def act(server, submitters):
        for _ in range(8):
            await asyncio.sleep(moments.uniform(0.0, 0.4))
            for pid in children(server.pid, module):
                os.kill(pid, signal.SIGKILL)
            await serves(server, 60.0)
            await submitters.at_least(20)

    drill(home, capsys, f"8 times {module} killed", act)


def test_workers_killed_at_random_moments_lose_no_job(home, capsys):
    async def act(server, submitters):
        for _ in range(15):
            for parent in children(server.pid, "processes.server"):
                for pid in children(parent, "runtime.worker")[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await submitters.at_least(20)

    drill(home, capsys, "15 workers killed", act)


def test_a_server_process_that_stands_still_is_replaced_and_its_jobs_are_its_successors(home, capsys):
    async def act(server, submitters):
        (before,) = children(server.pid, "processes.server")
        os.kill(before, signal.SIGSTOP)
        async with asyncio.timeout(60):
            while before in (now := children(server.pid, "processes.server")) or not now:
                await asyncio.sleep(0.05)
        await serves(server, 60.0)
        await submitters.at_least(50)

    drill(home, capsys, "server process stopped until it was replaced", act, SALVER_SERVER_HANG_S="2")
