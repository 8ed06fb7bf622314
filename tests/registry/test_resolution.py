from __future__ import annotations

import pytest
from tests.registry.promoting import Promoting

from salver.protocol.errors import SalverError


@pytest.fixture
def house(home, database, draft) -> Promoting:
    """1.0.0 in production, 1.0.1 in staging, 1.0.2 untouched."""
    made = Promoting(home, database)
    for content in "abc":
        made.register(draft(content))
    made.bring("1.0.0", "validation", "staging", "production")
    made.bring("1.0.1", "validation", "staging")
    return made


def number(house: Promoting, wanted: str | None) -> str:
    return house.records.pages.number_of("digits", wanted)


def revoke(house: Promoting, version: str) -> None:
    house.records.revocations.revoke(house.root, "digits", version, "wrong")


@pytest.mark.parametrize("wanted", [None, "latest"])
def test_without_a_number_the_highest_version_that_may_serve_is_meant(house: Promoting, wanted: str | None) -> None:
    assert number(house, wanted) == "1.0.2"
    house.promote("1.0.2", "archived")
    assert number(house, wanted) == "1.0.1"
    house.promote("1.0.1", "rejected")
    assert number(house, wanted) == house.records.catalog.models()[0].latest == "1.0.0"


def test_a_revoked_version_is_not_the_highest_nor_that_of_its_stage(house: Promoting) -> None:
    house.bring("1.0.2", "validation", "staging")
    revoke(house, "1.0.2")
    assert (number(house, None), number(house, "staging")) == ("1.0.1", "1.0.1")
    assert number(house, "1.0.2") == "1.0.2"
    revoke(house, "1.0.1")
    with pytest.raises(
        SalverError, match=r"all versions of 'digits' in staging are revoked: 1\.0\.2, 1\.0\.1"
    ) as raised:
        number(house, "staging")
    assert raised.value.remedy == "name one exactly to look at it, such as digits@1.0.2"
    assert number(house, None) == "1.0.0"


def test_where_no_version_may_serve_it_is_said_why_and_how_to_name_one(house: Promoting) -> None:
    house.promote("1.0.2", "archived")
    house.promote("1.0.1", "rejected")
    revoke(house, "1.0.0")
    with pytest.raises(SalverError) as raised:
        number(house, None)
    error = raised.value
    assert error.code == "NOT_FOUND"
    assert error.message == (
        "no version of model 'digits' may serve: 1.0.0 is revoked, 1.0.1 is rejected, 1.0.2 is archived"
    )
    assert error.remedy.startswith("name one exactly to look at it, such as digits@1.0.2")
    assert house.records.catalog.models()[0].latest is None
    assert (number(house, "archived"), number(house, "rejected")) == ("1.0.2", "1.0.1"), "who names it means it"


def test_only_prereleases_left_are_named(house: Promoting, draft) -> None:
    house.register(draft("d", version="2.0.0-rc.1"))
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        house.promote(version, "archived")
    with pytest.raises(SalverError, match=r"only pre-releases may serve: 2\.0\.0-rc\.1; name .* digits@2\.0\.0-rc\.1"):
        number(house, None)


def test_what_is_known_of_a_model_is_found_though_none_of_its_versions_may_serve(house: Promoting) -> None:
    house.promote("1.0.1", "archived")
    house.promote("1.0.2", "archived")
    revoke(house, "1.0.0")
    assert house.records.pages.aliases("digits") == ()
    assert len(house.lifecycle.decisions("digits")) > 0
    assert house.records.evaluations.of("digits") == ()
    with pytest.raises(SalverError, match="no model 'digit'"):
        house.records.evaluations.of("digit")
