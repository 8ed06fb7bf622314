"""A client that keeps books: every request has one right answer, and gets exactly one outcome."""

import asyncio
import json
from collections import Counter
from urllib.parse import urlsplit


class Ledger:
    """Sends `x` to the endpoint `linear` at a constant pace and checks `factor * x` for the version that answered."""

    def __init__(self, url, factors, *, rate_per_s=200, connections=8):
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._factors = factors
        self._rate = rate_per_s
        self._connections = connections
        self._next = 0
        self._stop = asyncio.Event()
        self.outcomes = Counter()
        self.wrong = []
        self.versions = Counter()

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._connections)]
        return self

    async def __aexit__(self, *_):
        self._stop.set()
        await asyncio.gather(*self._tasks)

    @property
    def sent(self):
        return sum(self.outcomes.values())

    async def at_least(self, count):
        """Wait until so many more requests have an outcome."""
        goal = self.sent + count
        async with asyncio.timeout(60):
            while self.sent < goal:
                await asyncio.sleep(0.01)

    async def _client(self):
        writer = None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stop.is_set():
            due += self._connections / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._next += 1
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(self._host, self._port)
                status, reply, last = await asyncio.wait_for(self._exchange(reader, writer, float(self._next)), 40)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.outcomes[type(error).__name__] += 1
                if writer is not None:
                    writer.close()
                writer = None
                continue
            self._check(reply["_x"], status, reply)
            if last:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()

    async def _exchange(self, reader, writer, x):
        tensor = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [x]}
        body = json.dumps({"id": str(int(x)), "inputs": [tensor]}).encode()
        head = f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in headers if line.startswith(b"content-length:"))
        reply = json.loads(await reader.readexactly(length))
        reply["_x"] = x
        return int(status.split()[1]), reply, b"connection: close" in headers

    def _check(self, x, status, reply):
        if status != 200:
            self.outcomes[f"{status}"] += 1
            return
        version = reply["model_version"]
        answer = reply["outputs"][0]["data"][0]
        self.versions[version] += 1
        if reply["id"] != str(int(x)) or answer != self._factors[version] * x:
            self.wrong.append((x, reply))
            self.outcomes["wrong"] += 1
        else:
            self.outcomes["right"] += 1
