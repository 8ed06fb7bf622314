"""Microseconds per stage of one request, measured in this process on the product's own objects.

Each stage is the time of its own functions, without the stages that they call. What is left of
the whole path are the calls between them and the event loop's callbacks.
"""

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
from salver.gateway.exchange import Exchange
from salver.gateway.gateway import Gateway
from salver.gateway.lane import Lane
from salver.gateway.routes import HttpRoute, HttpRouteTable
from salver.protocol.codecs.oip_request import decode_json
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import SignatureCheck
from salver.runtime.pool import Pool
from salver.runtime.recorder import FlightRecorder
from salver.security.access import ANONYMOUS, Operation
from salver.storage.home import Home
from salver.telemetry.logs import AccessSample
from salver.telemetry.metrics import Metrics, VersionMetrics

ROUNDS = 300
BATCH = 64


class NoTransport:
    """Takes what is written."""

    def write(self, data):
        pass


class Taken(Lane):
    """A connection that goes no further with a request it has read."""

    def _take(self, exchange):
        self.taken = exchange


class AtOnce:
    """A replica that has computed already."""

    placement = "inline"

    def __init__(self, pool, outputs):
        self._pool, self._outputs = pool, outputs
        pool.add(self)

    def start(self, _):
        self._pool.finished(self, self._outputs, 1e-5)

    async def stop(self):
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
    loaded = pool.replicas[0]._loaded
    outputs = loaded.run({"X": rows[:BATCH]})
    check = SignatureCheck(pool.manifest.signature)
    version = pool.manifest.version
    encoder = ResponseEncoder("digits", "digits", version, check.outputs, pool.spec.nonfinite)
    infer = decode_json(body, 10**6)
    request = Request("digits", infer.inputs, rows=1)
    gateway, lane = silent(plane)
    lane.data_received(raw)
    exchange = lane.taken
    lane.data_received(raw)
    assert lane.taken is not exchange, "each time it is given, a request is read"
    assert lane.taken.body == body
    found = {
        "parse: bytes to a request in HTTP": each(lambda: lane.data_received(raw)),
        "decode: JSON to packed tensors": each(lambda: decode_json(body, 10**6)),
        "admit: id, path, rights, signature": each(lambda: gateway.begin(exchange))
        + each(lambda: check.rows(infer.inputs)),
        "route: endpoint to version and pool": each(lambda: plane.router.resolve("digits")),
        f"queue: enqueue, cut, join, check, settle; batches of {BATCH}": await queue(pool, infer, outputs),
        f"compute: ONNX Runtime, 1/{BATCH} of a batch": each(lambda: loaded.run({"X": rows[:BATCH]})) / BATCH,
        f"encode: 1/{BATCH} of a batch to JSON": each(lambda: encode_all(encoder, request, version, outputs)) / BATCH,
        "write: reply head, hand over to the transport": write(gateway, encode_all(encoder, request, version, outputs)),
    }
    whole = await whole_path(plane, raw)
    found["between the stages: calls, callbacks"] = whole - sum(found.values())
    found["the whole path in process"] = whole
    return found


def silent(plane):
    """A gateway like the plane's whose door leads nowhere, and a connection on it that goes no further."""
    door = HttpRoute("POST", "/v2/models/{model}/infer", Operation.PREDICT, lambda _: None, "Nothing")
    gateway = Gateway(
        HttpRouteTable([door]),
        plane.gateway.limits,
        Metrics(),
        SYSTEM_CLOCK,
        authenticate=lambda _, __: ANONYMOUS,
        open_to_anyone=True,
        id_prefix="bench",
        access=AccessSample(1000),
    )
    lane = Taken(gateway)
    lane.connection_made(NoTransport())
    return gateway, lane


async def queue(pool, infer, outputs):
    """From a pool with a replica that needs no time: what it does besides computing."""
    idle = Pool(pool.spec, pool.manifest, VersionMetrics(), SYSTEM_CLOCK)
    AtOnce(idle, outputs)
    await asyncio.sleep(0)
    best = float("inf")
    for _ in range(ROUNDS):
        now_s = SYSTEM_CLOCK.monotonic_s()
        requests = [
            Request("digits", infer.inputs, received_s=now_s, deadline_s=now_s + 30, rows=1) for _ in range(BATCH)
        ]
        began = time.perf_counter()
        for request in requests:
            idle.enqueue(request)
        idle._dispatch()
        best = min(best, time.perf_counter() - began)
        await asyncio.sleep(0)
    await idle.stop(SalverError("NOT_READY", "the bench is over"))
    return best / BATCH * 1e6


def write(gateway, body):
    lane = Lane(gateway)
    lane.connection_made(NoTransport())
    best = float("inf")
    for _ in range(ROUNDS):
        exchanges = [Exchange(lane, b"POST", b"/", {}, id=b"bench-1") for _ in range(100)]
        began = time.perf_counter()
        for exchange in exchanges:
            lane._answering = exchange
            exchange.reply(body)
        best = min(best, time.perf_counter() - began)
    return best / 100 * 1e6


def encode_all(encoder, request, version, outputs):
    """Encode a whole batch; returns the last answer."""
    batch = BatchOutputs(outputs)
    for row in range(BATCH):
        body, _ = encoder.encode(request, Response("digits", version, batch, row, row + 1))
    return body


async def whole_path(plane, raw):
    """Bytes in to bytes out for BATCH connections at a time, without sockets; microseconds per request."""
    lanes = [Lane(plane.gateway) for _ in range(BATCH)]
    for lane in lanes:
        lane.connection_made(NoTransport())
    pool = plane.host.pools()["digits"]
    best = float("inf")
    gc.collect()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for lane in lanes:
            lane.data_received(raw)
        pool._dispatch()
        while any(lane._answering for lane in lanes):
            await asyncio.sleep(0)
        best = min(best, time.perf_counter() - began)
    return best / BATCH * 1e6


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
