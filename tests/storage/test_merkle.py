"""RFC 6962 in the words of RFC 6962: the tree and the audit path as recursive definitions, and its own numbers."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.storage.merkle import EMPTY_ROOT, Peaks, Prover, contains, leaf_hash

SIZES = 70


def split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def tree_hash(entries: list[bytes]) -> bytes:
    """MTH of section 2.1."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + tree_hash(entries[:k]) + tree_hash(entries[k:])).digest()


def audit_path(index: int, entries: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if index < k:
        return [*audit_path(index, entries[:k]), tree_hash(entries[k:])]
    return [*audit_path(index - k, entries[k:]), tree_hash(entries[:k])]


def grown(entries: list[bytes]) -> Peaks:
    peaks = Peaks()
    for entry in entries:
        peaks.add(leaf_hash(entry))
    return peaks


ENTRIES = [f"entry {number}".encode() for number in range(SIZES)]


def test_the_numbers_of_the_rfc() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert Peaks().root == EMPTY_ROOT


def test_the_numbers_of_the_reference_implementation() -> None:
    # github.com/google/certificate-transparency, merkletree tests: leaves and the roots of their trees.
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    peaks = Peaks()
    for leaf, root in zip(leaves, roots, strict=True):
        peaks.add(leaf_hash(bytes.fromhex(leaf)))
        assert peaks.root.hex() == root


@pytest.mark.parametrize("size", range(SIZES + 1))
def test_a_grown_tree_is_the_tree_of_the_definition(size: int) -> None:
    peaks = grown(ENTRIES[:size])
    assert peaks.root == tree_hash(ENTRIES[:size])
    assert Peaks.parse(size, peaks.text).root == peaks.root
    assert len(peaks.text) == 64 * size.bit_count()


def test_every_leaf_of_every_size_is_proved_and_no_other() -> None:
    for size in range(1, SIZES + 1):
        entries = ENTRIES[:size]
        root = tree_hash(entries)
        for index in range(size):
            prover = Prover(index)
            for entry in entries:
                prover.add(leaf_hash(entry))
            path = prover.path()
            leaf = leaf_hash(entries[index])
            assert list(path) == audit_path(index, entries)
            assert contains(root, size, index, leaf, path)
            assert not contains(root, size, index, leaf_hash(b"other"), path)
            assert not contains(root, size, index, leaf, (*path, leaf))
            assert not path or not contains(root, size, index, leaf, path[:-1])
            for other in {index - 1, index + 1, index ^ 1, 0, size - 1} - {index}:
                assert not contains(root, size, other, leaf, path)


@given(st.integers(1, SIZES), st.data())
def test_no_byte_of_a_proof_may_change(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = audit_path(index, ENTRIES[:size])
    at, bit = data.draw(st.integers(0, 32 * (len(path) + 1) - 1)), data.draw(st.integers(0, 7))
    together = bytearray(b"".join([tree_hash(ENTRIES[:size]), *path]))
    together[at] ^= 1 << bit
    root, *changed = (bytes(together[start : start + 32]) for start in range(0, len(together), 32))
    assert not contains(root, size, index, leaf_hash(ENTRIES[index]), changed)


@pytest.mark.parametrize(
    ("size", "text"), [(1, ""), (0, "00"), (1, "00" * 33), (3, "00" * 32), (-1, ""), (1, "zz" * 32), (1, "AA" * 32)]
)
def test_what_is_no_list_of_peaks_is_refused(size: int, text: str) -> None:
    with pytest.raises(ValueError):
        Peaks.parse(size, text)
