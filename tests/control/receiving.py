"""A receiver of webhooks, on a real socket of the test's event loop."""

import asyncio

__all__ = ["Receiver"]


class Receiver:
    """A receiver of webhooks that keeps what it is sent, and answers as it is told."""

    def __init__(self, tls=None):
        self.tls = tls
        self.heard = []
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.hold = None
        self.connections = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        if self.hold is not None:
            self.hold.set()
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.heard.append((first, headers, await reader.readexactly(int(headers["content-length"]))))
        if self.hold is not None:
            await self.hold.wait()
        writer.write(self.answer)
        writer.close()
