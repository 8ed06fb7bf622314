"""Who sends wrong tokens is slowed down, by address; who has shown a right one is not.

Each wrong token costs its peer one of `FREE_GUESSES`, of which one comes back each second. A peer that
has none left is refused before its token is looked at, so that it learns nothing. A token that
was verified before passes all the same: behind a proxy, or on one machine, all clients share an
address, and one that guesses must not shut the others out.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.security.access import Principal
from salver.security.tokens import TokenVerifier

__all__ = ["FREE_GUESSES", "GuessLimit", "TooManyGuessesError"]

FREE_GUESSES: Final = 100
_BACK_PER_S: Final = 1.0
_PEERS: Final = 4096
_SITE_BITS: Final = 64
"""Whoever has one address of IPv6 has all that share so many bits with it."""


class TooManyGuessesError(SalverError):
    """TOO_MANY_GUESSES; `retry_after_s`, whole seconds, says when one more token is looked at."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "TOO_MANY_GUESSES",
            "too many wrong tokens came from this address",
            f"stop what sends them, and retry after {retry_after_s} s",
        )
        self.retry_after_s = retry_after_s


class GuessLimit:
    """The wrong tokens of the last minutes by peer. Bounded: the peer that was quiet longest is forgotten first.

    Use it from one thread.
    """

    __slots__ = ("_clock", "_free", "_peers", "_wrong")

    def __init__(self, clock: Clock, *, free: int = FREE_GUESSES, peers: int = _PEERS) -> None:
        self._clock = clock
        self._free = free
        self._peers = peers
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many each peer has spent, and when that was so; who spent last stands last."""

    def __repr__(self) -> str:
        return f"<GuessLimit {len(self._wrong)} peers>"

    def principal(self, peer: str | None, token: str, verifier: TokenVerifier) -> Principal | None:
        """`verifier.verify(token)`, for a client at the address `peer`; None for one without, which is not slowed.

        Raises TooManyGuessesError while the peer has sent too many wrong ones.
        """
        if peer is None:
            return verifier.verify(token)
        principal = verifier.recall(token)
        if principal is not None:
            return principal
        site = _site(peer)
        spent = self._spent(site)
        if spent > self._free - 1:
            raise TooManyGuessesError(max(1, math.ceil((spent - self._free + 1) / _BACK_PER_S)))
        principal = verifier.verify(token)
        if principal is None:
            self._note(site, spent + 1)
        return principal

    def _spent(self, site: str) -> float:
        spent, then_s = self._wrong.get(site, (0.0, 0.0))
        return max(0.0, spent - (self._clock.monotonic_s() - then_s) * _BACK_PER_S) if spent else 0.0

    def _note(self, site: str, spent: float) -> None:
        self._wrong[site] = spent, self._clock.monotonic_s()
        self._wrong.move_to_end(site)
        if len(self._wrong) > self._peers:
            self._wrong.popitem(last=False)


def _site(peer: str) -> str:
    """What stands for a peer: its address, or for IPv6 the network it can choose addresses from."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:80]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), _SITE_BITS), strict=False))
