"""Every limit of the data listener, in one place and finite."""

from __future__ import annotations

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may make this server hold, and for how long."""

    connections: int = 10_000
    header_bytes: int = 16 * 2**10
    """Request line and headers together, counted as they come."""
    headers: int = 100
    uri_bytes: int = 8 * 2**10
    body_bytes: int = 64 * 2**20
    """One body, as sent and after decompression."""
    inflight_bytes: int = 512 * 2**20
    """All bodies being received or answered."""
    pipelined: int = 32
    """Requests on one connection that wait for an earlier one's answer."""
    streams: int = 256
    """gRPC calls open at one time on one connection."""
    tensor_elements: int = 16 * 2**20
    header_timeout_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_grace_s: float = 5.0
    body_bytes_per_s: float = 1024.0
    """The least pace of a body once the grace is over, and of a client that reads an answer slowly."""
    keep_alive_s: float = 75.0
    write_stall_s: float = 30.0
    """How long a client may leave an answer unread, or read it at less than that pace."""
    linger_s: float = 1.0
    """How long the rest of a refused request is read and thrown away, so that the client sees why."""
