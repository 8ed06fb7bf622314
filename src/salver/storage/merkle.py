"""The Merkle tree of RFC 6962 over a log that only grows: its root, and proofs that a leaf is in it.

A tree is grown leaf by leaf. What has to be kept are its peaks: the roots of the perfect subtrees that its leaves
fall into, the largest first, one for each bit of their number. Nothing here reads or writes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

__all__ = ["EMPTY_ROOT", "Peaks", "Prover", "contains", "leaf_hash"]

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_sha256 = hashlib.sha256
_HASH_BYTES: Final = 32
EMPTY_ROOT: Final = _sha256().digest()
"""RFC 6962 section 2.1: the hash of an empty tree is that of an empty string."""


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 section 2.1: a leaf begins with 0x00, so that none can be taken for a node."""
    return _sha256(_LEAF + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(_NODE + left + right).digest()


class Peaks:
    """The peaks of a tree of `size` leaves; `add` takes O(1) hashes on average, O(log n) at most."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    @classmethod
    def parse(cls, size: int, text: str) -> Peaks:
        """What `text` gave; raises ValueError for what is not the peaks of a tree of this size."""
        together = bytes.fromhex(text)
        if size < 0 or len(together) != size.bit_count() * _HASH_BYTES or together.hex() != text:
            raise ValueError(f"{len(text)} characters are not the peaks of a tree of {size} leaves")
        return cls(size, [together[at : at + _HASH_BYTES] for at in range(0, len(together), _HASH_BYTES)])

    @property
    def text(self) -> str:
        """All peaks, the largest first, in hexadecimal without anything between."""
        return b"".join(self._peaks).hex()

    @property
    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _node_hash(peak, root)
        return root

    def add(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        peaks, size = self._peaks, self.size
        node = leaf
        while size & 1:
            node = _sha256(_NODE + peaks.pop() + node).digest()
            size >>= 1
        peaks.append(node)
        self.size += 1


class Prover:
    """Collects, in one pass over the leaves, the proof that the one with index `wanted` is in the tree.

    The proof is the audit path of RFC 6962 section 2.1.1, the sibling of the leaf first. Keeps O(log n) hashes.
    """

    __slots__ = ("_holds", "_path", "_peaks", "_size", "_wanted")

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._size = 0
        self._peaks: list[bytes] = []
        self._holds: list[bool] = []
        """Of each peak whether the wanted leaf is below it."""
        self._path: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Add the next leaf by its hash."""
        node, holds, size = leaf, self._size == self._wanted, self._size
        while size & 1:
            node, holds = self._join(self._peaks.pop(), self._holds.pop(), node, right_holds=holds)
            size >>= 1
        self._peaks.append(node)
        self._holds.append(holds)
        self._size += 1

    def _join(self, left: bytes, left_holds: bool, right: bytes, *, right_holds: bool) -> tuple[bytes, bool]:
        if left_holds:
            self._path.append(right)
        elif right_holds:
            self._path.append(left)
        return _node_hash(left, right), left_holds or right_holds

    def path(self) -> tuple[bytes, ...]:
        """The proof, when the last leaf has been added; call it once. REQUIRES more leaves than `wanted`."""
        assert self._size > self._wanted >= 0
        node, holds = self._peaks[-1], self._holds[-1]
        for peak, peak_holds in zip(reversed(self._peaks[:-1]), reversed(self._holds[:-1]), strict=True):
            node, holds = self._join(peak, peak_holds, node, right_holds=holds)
        return tuple(self._path)


def contains(root: bytes, size: int, index: int, leaf: bytes, path: Iterable[bytes]) -> bool:
    """Whether `path` proves that the leaf with this hash stands at `index` in the tree of `size` leaves.

    The algorithm of RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    at, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = _node_hash(sibling, node)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            node = _node_hash(node, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and node == root
