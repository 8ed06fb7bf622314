"""Sending a message to a webhook: signed, to an address that was checked, once. Whoever calls repeats it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import httpx2

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.registry.webhooks import WebhookRecord
from salver.security.egress import parse_target, require_public
from salver.security.signing import signature_headers, webhook_secret

__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "Resolve", "Sender", "Tried", "resolve_name"]

FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 3600.0
"""Between two tries."""
_GONE: Final = 410

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From a host and port to all its addresses."""


class Tried(NamedTuple):
    """What one try met."""

    delivered: bool
    note: str
    final: bool = False
    """Whether more tries would meet the same."""


async def resolve_name(host: str, port: int) -> list[str]:
    """Ask the system; raises OSError where it does not know."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


class Sender:
    """Sends to webhooks; each message has `limit_s`. The key of the home is `pepper`."""

    def __init__(self, pepper: bytes, limit_s: float, clock: Clock, *, resolve: Resolve = resolve_name) -> None:
        self._pepper = pepper
        self._limit_s = limit_s
        self._clock = clock
        self._resolve = resolve
        self._tls = ssl.create_default_context()

    async def send(self, webhook: WebhookRecord, message_id: str, body: bytes) -> Tried:
        """Send one message; whatever goes wrong is said and not raised."""
        try:
            async with asyncio.timeout(self._limit_s):
                status = await self._post(webhook, message_id, body)
        except TimeoutError:
            return Tried(False, f"no answer within {self._limit_s:g} s")
        except SalverError as error:
            return Tried(False, error.message)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ssl.SSLError) as error:
            return Tried(False, f"it could not be reached: {type(error).__name__}")
        return Tried(200 <= status < 300, f"it answered {status}", final=status == _GONE)

    async def _post(self, webhook: WebhookRecord, message_id: str, body: bytes) -> int:
        """Send the message to a checked address and return the status; the rest of the answer is not read."""
        target = parse_target(webhook.url, allow_private=webhook.allow_private)
        addresses = await self._resolve(target.host, target.port)
        if not webhook.allow_private:
            require_public(target.host, addresses)
        if not addresses:
            raise OSError("no address")
        secret = webhook_secret(self._pepper, webhook.id)
        headers = signature_headers(secret, message_id, self._clock.wall_s(), body) | {
            "host": target.authority,
            "content-type": "application/json",
            "user-agent": "salver",
            "connection": "close",
        }
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None) as client,
            client.stream(
                "POST",
                target.url_at(addresses[0]),
                content=body,
                headers=headers,
                extensions={"sni_hostname": target.host},  # TLS still asks for the name
            ) as answer,
        ):
            return answer.status_code
