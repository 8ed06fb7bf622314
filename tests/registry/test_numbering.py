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


# A number below a higher release of the same major number.


def with_outputs(version: str, *names: str):
    outputs = tuple(TensorSpec(name, "FP32", (-1,)) for name in names)
    return make_manifest(version=version, signature=Signature((X,), outputs))


BETWEEN = [with_outputs("1.0.0", "y"), with_outputs("1.5.0", "y", "z"), with_outputs("2.0.0", "y")]


@pytest.mark.parametrize("wanted", ["1.2.0", "1.2.0-rc.1", "1.4.9"])
def test_nothing_is_added_below_a_release_that_does_not_have_it(wanted: str) -> None:
    with pytest.raises(SalverError) as raised:
        number(BETWEEN, with_outputs("0.0.0", "y", "w"), wanted)
    assert raised.value.code == "INVALID_VERSION"
    assert raised.value.message.startswith(
        f"{wanted} would be followed by 1.5.0, which says too little of what then changes: output 'w' is gone"
    )
    assert raised.value.remedy.startswith("use 2.1.0 or none")


@pytest.mark.parametrize(
    ("wanted", "outputs"),
    [
        ("1.2.0", ("y",)),
        ("1.2.0", ("y", "z")),
        ("1.5.0-rc.1", ("y", "w")),  # to its own release a pre-release promises nothing
        ("1.6.0", ("y", "z", "w")),  # 2.0.0 may take away what it has
        ("2.1.0", ("y", "w")),
    ],
)
def test_what_the_release_behind_it_goes_on_with_may_be_added(wanted: str, outputs) -> None:
    assert number(BETWEEN, with_outputs("0.0.0", *outputs), wanted).version == wanted


def test_a_patch_cannot_be_added_where_the_next_patch_then_says_too_little() -> None:
    known = [with_outputs("1.0.0", "y", "z"), with_outputs("1.1.0", "y", "z"), with_outputs("1.1.2", "y", "z")]
    with pytest.raises(SalverError, match=r"1\.1\.0-rc\.2 would be followed by 1\.1\.2"):
        number(known[:1] + known[2:], with_outputs("0.0.0", "y", "z", "w"), "1.1.0-rc.2")


def test_below_1_0_0_the_next_minor_number_may_break() -> None:
    known = [with_outputs("0.3.0", "y"), with_outputs("0.4.0", "y"), with_outputs("0.3.9", "y")]
    fresh = with_outputs("0.0.0", "y", "w")
    with pytest.raises(SalverError, match=r"followed by 0\.3\.9"):
        number(known, fresh, "0.3.5")
    assert number(known[:2], fresh, "0.3.5").before == "0.4.0"


def test_what_comes_next_is_told_with_what_it_then_changes() -> None:
    found = number(BETWEEN, with_outputs("0.0.0", "y"), "1.2.0")
    assert (found.against, found.changes, found.before) == ("1.0.0", (), "1.5.0")
    assert [change.what for change in found.later_changes] == ["output 'z' is new"]
