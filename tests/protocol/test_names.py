from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion, check_name, named_version, parse_reference


def version(text: str) -> SemanticVersion:
    return SemanticVersion.parse(text)


@pytest.mark.parametrize("name", ["a", "0", "digits", "digits-2.v_1", "a" * 128, "1.0.0", "a--b", "a__b"])
def test_a_name_may_hold_lower_case_digits_and_marks(name: str) -> None:
    assert check_name(name, "model") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        ".a",
        "a.",
        "_a",
        "A",
        "a b",
        "a/b",
        "a\\b",
        "..",
        "a..b",
        "a\n",
        "a\x00",
        "ä",
        "٣",
        "a" * 129,
        "a%",
    ],
)
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(SalverError, match="model name") as raised:
        check_name(name, "model")
    assert raised.value.code == "INVALID_NAME"
    assert "1-128 characters" in raised.value.remedy


SPEC_ORDER = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
SPEC_ORDER += ["1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1"]


def test_the_specifications_own_examples_are_in_order() -> None:
    for lower, higher in itertools.combinations(SPEC_ORDER, 2):
        assert version(lower) < version(higher)
        assert not version(higher) < version(lower)
    assert sorted(map(version, reversed(SPEC_ORDER))) == list(map(version, SPEC_ORDER))


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.9.0", "1.10.0"),
        ("1.0.0-1", "1.0.0-a"),  # numbers before letters
        ("1.0.0-a", "1.0.0-a.0"),  # fewer identifiers first
        ("1.0.0-A", "1.0.0-a"),  # ASCII order
        ("1.0.0-rc.1+z", "1.0.0+a"),  # build metadata never outweighs
        ("1.0.0", "1.0.0+1"),
        ("1.0.0+2", "1.0.0+10"),
        ("1.0.0+01", "1.0.0+1"),
        ("1.0.0+a", "1.0.0+b"),
    ],
)
def test_the_order_of_two(lower: str, higher: str) -> None:
    assert version(lower) < version(higher)
    assert version(lower) <= version(higher)
    assert version(higher) > version(lower)
    assert version(lower) != version(higher)
    assert max(version(lower), version(higher)) == version(higher)


def test_build_metadata_does_not_change_the_precedence() -> None:
    assert version("1.0.0+a").precedence == version("1.0.0+b").precedence == version("1.0.0").precedence
    assert version("1.0.0-a").precedence != version("1.0.0").precedence


identifiers = st.from_regex(r"(0|[1-9][0-9]{0,3}|[0-9]{0,2}[A-Za-z-][0-9A-Za-z-]{0,3})", fullmatch=True)
versions = st.builds(
    lambda numbers, pre, build: (
        ".".join(map(str, numbers)) + ("-" + ".".join(pre) if pre else "") + ("+" + ".".join(build) if build else "")
    ),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.lists(identifiers, max_size=2),
    st.lists(st.from_regex(r"[0-9A-Za-z-]{1,2}", fullmatch=True), max_size=2),
)


@given(versions, versions)
def test_sort_keys_sort_as_the_versions_do(one: str, other: str) -> None:
    left, right = version(one), version(other)
    assert (left.sort_key < right.sort_key) == (left < right)
    assert (left.sort_key == right.sort_key) == (left == right)
    same = left.precedence == right.precedence
    assert left.sort_key.startswith(f"{right.precedence_key}+") == same
    if not same:
        assert (left.sort_key < right.precedence_key) == (left < right)


def test_the_keys_of_the_specifications_own_examples_are_in_order() -> None:
    assert sorted(SPEC_ORDER, key=lambda each: version(each).sort_key) == SPEC_ORDER
    assert version("9999999999.0.0").sort_key > version("1999999999.9.9").sort_key
    assert version("1.2.3-rc.1+b").release == version("1.2.3")


@given(versions, versions, versions)
def test_versions_have_one_total_order(a: str, b: str, c: str) -> None:
    x, y, z = version(a), version(b), version(c)
    assert (x < y) + (x == y) + (y < x) == 1
    assert (x == y) == (a == b)
    if x < y < z:
        assert x < z


@given(versions)
def test_a_version_reads_back_as_it_was_written(text: str) -> None:
    assert str(version(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "01.0.0",
        "1.0.0.0",
        "v1.0.0",
        "1.0.0-",
        "1.0.0+",
        "1.0.0-01",
        "1.0.0-a..b",
        "1.0.0+a+b",
        " 1.0.0",
        "1.0.0\n",
        "1.0.٣",
        "1.0.1٣",
        "1.0.0-٣a",
        "1.0.0-ä",
        "-1.0.0",
        "1.0.12345678901",
        "1.0.0-" + "a" * 60,
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(SalverError, match="is not a semantic version") as raised:
        version(text)
    assert raised.value.code == "INVALID_VERSION"


def test_a_reference_names_a_model_and_perhaps_a_version() -> None:
    assert parse_reference("digits") == ("digits", None)
    assert parse_reference("digits@1.0.0-rc.1+b") == ("digits", "1.0.0-rc.1+b")
    for wrong in ("", "@1.0.0", "digits@", "digits@1", "Digits@1.0.0", "a@1.0.0@1.0.0"):
        with pytest.raises(SalverError):
            parse_reference(wrong)


def test_a_number_without_a_name_is_answered_with_how_to_write_it() -> None:
    with pytest.raises(SalverError, match=r"'1\.0\.1' names no model; write NAME@1\.0\.1"):
        named_version("1.0.1")
    with pytest.raises(SalverError, match="'digits' names no version; write digits@VERSION"):
        named_version("digits")
