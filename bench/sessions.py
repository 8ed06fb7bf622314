"""What sessions cost and gain: silero-vad with its state kept here, against the same graph with the state sent along.

python bench/sessions.py [--seconds N] [--wheels FOLDER] [--write]
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import report
import setting
import uvloop

PAIRS = 3
CLIENTS = (1, 16)
EXAMPLE = setting.HERE.parent / "examples" / "silero_vad"
STEPS, TOGETHER = 20_000, 64
STATES = {"state": [2, 1, 128], "context": [1, 64]}


def measure(work, wheels, seconds):
    """Lines of a table."""
    kept, sent = work / "kept", work / "sent"
    words = ["--wheels", str(wheels)] if wheels else []
    subprocess.run([sys.executable, EXAMPLE / "make.py", kept, *words], check=True, capture_output=True)
    sent.mkdir()
    shutil.copyfile(kept / "model.onnx", sent / "model.onnx")
    home = work / "home"
    for name, folder in (("kept", kept), ("sent", sent)):
        setting.salver(home, "register", name, str(folder))
        # Else each might compute elsewhere: a step takes about as long as the border between the two.
        setting.salver(home, "deploy", name, "--placement", "inline")
    rates = {(name, clients): [] for clients in CLIENTS for name in ("kept", "sent")}
    with setting.served(home) as ready:
        for turn in range(PAIRS):
            for (name, clients), found in rates.items():
                print(f"... sessions, pair {turn + 1} of {PAIRS}: {name}, {clients}", file=sys.stderr, flush=True)
                found.append(asyncio.run(rate(ready["http"], name, clients, seconds)))
    return [
        "silero-vad on the event loop, one step after the other in each client, binary over HTTP, steps a second, "
        "medians of three interleaved pairs:",
        "",
        "| clients | state kept in sessions | state sent along | ratio (each pair) |",
        "|---|---|---|---|",
        *(_line(clients, rates["kept", clients], rates["sent", clients]) for clients in CLIENTS),
        "",
        *uvloop.run(per_step()),
        "",
    ]


def _line(clients, kept, sent):
    ratios = [one / other for one, other in zip(kept, sent, strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return (
        f"| {clients} | {setting.median(kept):,.0f} | {setting.median(sent):,.0f} | "
        f"{setting.median(ratios):.2f} ({each}) |"
    )


async def rate(url, name, clients, seconds):
    """Steps a second of so many clients."""
    until = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(client(url, name, number, until) for number in range(clients)))) / seconds


async def client(url, name, number, until):
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    tensors = {"chunk": np.zeros((1, 512), "<f4").tobytes()}
    shapes = {"chunk": [1, 512]}
    session = {"sequence_id": number + 1}
    if name == "sent":
        shapes, session = shapes | STATES, {}
        tensors |= {state: bytes(4 * int(np.prod(shape))) for state, shape in STATES.items()}
    first = _request(name, shapes, tensors, session | {"sequence_start": True})
    again = _request(name, shapes, tensors, session)
    head = again[: again.index(b"\r\n\r\n") + 4]
    document = again[len(head) : len(again) - sum(map(len, tensors.values()))]
    steps = 0
    while time.perf_counter() < until:
        writer.write(head + document + b"".join(tensors.values()) if steps else first)
        answer = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the load met an error: {body}")
        if name == "sent":
            # Behind the JSON and the answer of four bytes, in the order of the graph's outputs.
            tensors["state"], tensors["context"] = body[-1280:-256], body[-256:]
        steps += 1
    writer.close()
    return steps


def _request(name, shapes, tensors, session):
    described = [
        {"name": key, "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": len(tensors[key])}}
        for key, shape in shapes.items()
    ]
    document = json.dumps({"inputs": described, "parameters": {"binary_data_output": True, **session}}).encode()
    body = document + b"".join(tensors.values())
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(document)}\r\n\r\n".encode() + body


async def per_step():
    """What a step costs above a request without state, in one process, with a model that takes no time."""
    from salver.clock import SYSTEM_CLOCK
    from salver.protocol.request import SequenceStep
    from salver.runtime.pool import Pool
    from salver.runtime.sessions import Sessions
    from salver.runtime.states import keep_states
    from salver.telemetry.metrics import VersionMetrics
    from salver.testing import make_manifest, make_request, make_spec

    class Free:
        def run(self, inputs):
            return {"y": inputs["x"]}

        def step(self, inputs, states):
            states[:] = [1] * len(states)
            return {"y": inputs["x"]}

    class AtOnce:
        pid, restarts, placement = None, 0, "inline"

        def __init__(self, pool, model):
            self.pool, self.model = pool, model
            pool.add(self)

        def start(self, batch):
            self.pool.finished(self, self.model.run(batch.inputs), 0.0)

        async def stop(self):
            pass

    stateful = make_manifest(kind="sequence", idempotent=False)
    pool = Pool(make_spec(), make_manifest(), VersionMetrics(), SYSTEM_CLOCK)
    sessions = Sessions(make_spec(), stateful, VersionMetrics(), SYSTEM_CLOCK)
    AtOnce(pool, Free())
    AtOnce(sessions.pools[0], keep_states(Free(), stateful, None, None))
    starts = [make_request([[0, 0]], sequence=SequenceStep(at, start=True)) for at in range(1, TOGETHER + 1)]
    await asyncio.gather(*map(sessions, starts))
    return [
        "Processor time of each in one process, with a model that takes none, medians of five interleaved pairs:",
        "",
        "| how | a request without state | a step | more (each pair) |",
        "|---|---|---|---|",
        await _difference(pool, sessions, 1, "one after the other"),
        await _difference(pool, sessions, TOGETHER, f"{TOGETHER} at a time, each of another session"),
    ]


async def _difference(pool, sessions, together, how):
    from salver.protocol.request import SequenceStep
    from salver.testing import make_request

    steps = [SequenceStep(at) for at in range(1, together + 1)]
    taken = {"request": [], "step": []}
    for _ in range(PAIRS + 2):
        for name, service in (("request", pool), ("step", sessions)):
            turns = [
                [make_request([[0, 0]], sequence=step if name == "step" else None) for step in steps]
                for _ in range(STEPS // together)
            ]
            began = time.process_time()
            for requests in turns:
                for answer in [service(request) for request in requests]:
                    await answer
            taken[name].append((time.process_time() - began) / (len(turns) * together) * 1e6)
    more = [step - request for step, request in zip(taken["step"], taken["request"], strict=True)]
    each = ", ".join(f"{one:.1f}" for one in more)
    return (
        f"| {how} | {setting.median(taken['request']):.1f} us | {setting.median(taken['step']):.1f} us | "
        f"{setting.median(more):.1f} us ({each}) |"
    )


def main():
    arguments = report.arguments(__doc__, seconds=4)
    arguments.add_argument("--wheels", type=Path, help="a folder with the wheel of the example")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="salver-bench-") as folder:
        report.tell("sessions", measure(Path(folder), given.wheels, given.seconds), write=given.write)


if __name__ == "__main__":
    main()
