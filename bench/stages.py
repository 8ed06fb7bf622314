"""Microseconds per stage of one request, measured in this process on the product's own objects."""

import asyncio
import gc
import tempfile
import time
from pathlib import Path

import setting
import uvloop

from salver.app import DataPlane
from salver.clock import SYSTEM_CLOCK
from salver.config import read_settings
from salver.gateway.lane import Lane
from salver.protocol.codecs.oip_request import decode_json
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import SignatureCheck
from salver.runtime.recorder import FlightRecorder
from salver.storage.home import Home

ROUNDS = 300
BATCH = 64


class NoTransport:
    """Takes what is written."""

    def write(self, data):
        pass


async def measure(home_path, rows):
    home = Home.open(home_path)
    with tempfile.TemporaryDirectory() as scratch:
        plane = DataPlane(
            home,
            read_settings(None, {}),
            FlightRecorder(Path(scratch) / "recorder"),
            Path(scratch),
            SYSTEM_CLOCK,
            pepper=home.pepper(),
            open_to_anyone=True,
        )
        plane.read_tables()
        await plane.host.settled()
        found = await stages(plane, rows)
        await plane.host.close(1.0)
    return found


async def stages(plane, rows):
    body, headers = setting.json_body(rows[:1])
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    raw = start.encode() + body
    pool = plane.host.pools()["digits"]
    check = SignatureCheck(pool.manifest.signature)
    infer = decode_json(body, 10**6)
    request = Request("digits", infer.inputs)
    target = plane.router.resolve("digits")
    outputs = pool.replicas[0]._loaded.run({"X": rows[:BATCH]})
    encoder = ResponseEncoder("digits", "digits", "1.0.0", check.outputs, target.spec.nonfinite)
    found = {
        "decode: JSON to packed tensors": each(lambda: decode_json(body, 10**6)),
        "admit: check against the signature": each(lambda: check.rows(infer.inputs)),
        "route: endpoint to version and pool": each(lambda: plane.router.resolve("digits")),
        f"compute: ONNX Runtime, 1/{BATCH} of a batch": each(lambda: pool.replicas[0]._loaded.run({"X": rows[:BATCH]}))
        / BATCH,
        f"encode: 1/{BATCH} of a batch to JSON": each(lambda: encode_all(encoder, request, outputs)) / BATCH,
    }
    received, ran, answered = await whole_path(plane, raw)
    inner = sum(found.values())
    found["queue, batch, parse and write: the rest"] = received + ran + answered - inner
    found["the whole path in process"] = received + ran + answered
    return found


def encode_all(encoder, request, outputs):
    batch = BatchOutputs(outputs)
    for row in range(BATCH):
        encoder.encode(request, Response("digits", "1.0.0", batch, row, row + 1))


async def whole_path(plane, raw):
    """Bytes in to bytes out for BATCH connections at a time, without sockets."""
    lanes = [Lane(plane.gateway) for _ in range(BATCH)]
    for lane in lanes:
        lane.connection_made(NoTransport())
    pool = plane.host.pools()["digits"]
    seconds = [0.0, 0.0, 0.0]
    gc.collect()
    for turn in range(ROUNDS + 20):
        if turn == 20:
            seconds = [0.0, 0.0, 0.0]
        marks = [time.perf_counter()]
        for lane in lanes:
            lane.data_received(raw)
        marks.append(time.perf_counter())
        pool._dispatch()
        marks.append(time.perf_counter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        marks.append(time.perf_counter())
        for index in range(3):
            seconds[index] += marks[index + 1] - marks[index]
    return [value / ROUNDS / BATCH * 1e6 for value in seconds]


def each(call, seconds=0.15):
    """Microseconds of one call: the best of many short runs."""
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(100):
            call()
        best = min(best, (time.perf_counter() - began) / 100)
    return best * 1e6


def run(home_path, rows):
    return uvloop.run(measure(home_path, rows))
