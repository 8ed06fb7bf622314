"""The numbers of versions say what they change."""

from __future__ import annotations

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion
from salver.protocol.signature import Signature, TensorSpec
from salver.registry.compatibility import Level
from salver.registry.numbering import number
from salver.testing import make_manifest

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 2))
SIGNATURES = {
    "patch": Signature((X,), (Y,)),
    "minor": Signature((X,), (Y, TensorSpec("z", "FP32", (-1,)))),
    "major": Signature((TensorSpec("age", "FP32", (-1,)), X), (Y,)),
}


def known(*numbers: str):
    return [make_manifest(version=each, signature=SIGNATURES["patch"]) for each in numbers]


def changed(how: str):
    return make_manifest(version="0.0.0", signature=SIGNATURES[how])


@pytest.mark.parametrize(
    ("numbers", "patch", "minor", "major"),
    [
        ([], "1.0.0", "1.0.0", "1.0.0"),
        (["1.0.0"], "1.0.1", "1.1.0", "2.0.0"),
        (["1.2.3", "1.10.0", "1.9.9"], "1.10.1", "1.11.0", "2.0.0"),
        (["0.3.1"], "0.3.2", "0.3.2", "0.4.0"),
        (["1.0.0", "2.0.0-rc.1"], "2.0.0", "2.0.0", "2.0.0"),
        (["1.0.0", "1.0.1-rc.1"], "1.0.1", "1.1.0", "2.0.0"),
        (["0.1.0-alpha"], "0.1.0", "0.1.0", "0.1.0"),
        (["1.0.0+build.7"], "1.0.1", "1.1.0", "2.0.0"),
    ],
)
def test_without_a_wish_it_is_the_smallest_that_says_enough(numbers, patch: str, minor: str, major: str) -> None:
    found = [number(known(*numbers), changed(how)).version for how in ("patch", "minor", "major")]
    assert found == [patch, minor, major]


@pytest.mark.parametrize(
    ("wanted", "how", "least"),
    [
        ("1.2.4", "minor", "1.3.0"),
        ("1.2.4", "major", "2.0.0"),
        ("1.3.0", "major", "2.0.0"),
        ("1.3.0-rc.1", "major", "2.0.0"),
        ("1.0.1", "minor", "1.1.0"),  # held against 1.0.0, though 1.2.3 is there
        ("0.3.5", "major", "0.4.0"),
    ],
)
def test_a_number_that_says_too_little_is_refused_with_what_differs(wanted: str, how: str, least: str) -> None:
    with pytest.raises(SalverError) as raised:
        number(known("0.3.4", "1.0.0", "1.2.3"), changed(how), wanted)
    assert raised.value.code == "INVALID_VERSION"
    what = "output 'z' is new" if how == "minor" else "input 'age' is new and required"
    assert f"{wanted} says too little" in raised.value.message
    assert what in raised.value.message
    assert raised.value.remedy.startswith(f"use {least} or higher")


@pytest.mark.parametrize(
    ("wanted", "how"),
    [
        ("1.2.4", "patch"),
        ("1.2.4-rc.1", "patch"),
        ("1.3.0", "minor"),
        ("2.0.0", "major"),
        ("7.0.0", "patch"),
        ("2.0.0-rc.1", "major"),
        ("0.1.0", "major"),  # before all others
        ("0.3.5", "minor"),
        ("0.4.0", "major"),
    ],
)
def test_a_number_that_says_enough_or_more_is_taken(wanted: str, how: str) -> None:
    assert number(known("0.3.4", "1.2.3"), changed(how), wanted).version == wanted


def test_what_was_found_is_told_with_the_release_it_was_compared_with() -> None:
    found = number(known("1.0.0", "1.2.3", "1.3.0-rc.1"), changed("minor"))
    assert (found.version, found.against) == ("1.3.0", "1.2.3")
    assert [change.level for change in found.changes] == [Level.MINOR]
    assert number([], changed("minor")).against == ""


def test_many_changes_are_counted_behind_the_first_five() -> None:
    inputs = tuple(TensorSpec(f"i{at}", "FP32", (-1,)) for at in range(9))
    with pytest.raises(SalverError, match="5 more"):
        number(known("1.0.0"), make_manifest(version="0.0.0", signature=Signature(inputs, (Y,))), "1.0.1")


def test_picked_numbers_are_always_new_and_behind_all_releases() -> None:
    there = []
    for how in ("patch", "minor", "major", "patch", "minor", "major") * 3:
        picked = number(there, changed(how)).version
        assert all(SemanticVersion.parse(picked) > SemanticVersion.parse(each.version) for each in there)
        there.append(make_manifest(version=picked, signature=SIGNATURES[how]))
