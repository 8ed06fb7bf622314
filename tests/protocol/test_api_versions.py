"""The version of Salver's own interface, and what is said of routes that will go."""

from __future__ import annotations

import datetime as dt

import pytest

from salver.protocol.api_versions import NOTICE_DAYS, Deprecation, check_api_version
from salver.protocol.errors import SalverError

SINCE = dt.date(2027, 1, 1)


@pytest.mark.parametrize("asked", [b"1", b" 1 "])
def test_the_version_that_is_answered_is_taken(asked: bytes) -> None:
    check_api_version(asked)


@pytest.mark.parametrize("asked", [b"", b"2", b"v1", b"1.0", b"01", b"\xff", b"9" * 5000])
def test_every_other_version_is_refused_naming_those_that_are(asked: bytes) -> None:
    with pytest.raises(SalverError, match="this server answers 1") as raised:
        check_api_version(asked)
    assert raised.value.code == "INVALID_PARAMETER"
    assert len(str(raised.value)) < 200


def test_a_route_that_will_go_says_since_when_until_when_and_what_takes_its_place() -> None:
    gone = Deprecation(SINCE, dt.date(2027, 7, 1), "/v2/models/{model}/infer")
    assert dict(gone.headers({"model": "a b/c", "other": "x"})) == {
        b"deprecation": b"@1798761600",
        b"sunset": b"Thu, 01 Jul 2027 00:00:00 GMT",
        b"link": b'</docs#api-versions>; rel="deprecation"; type="text/html", </docs#api-versions>; rel="sunset", '
        b'</v2/models/a%20b%2Fc/infer>; rel="successor-version"',
    }
    assert b"successor" not in dict(Deprecation(SINCE, dt.date(2027, 7, 1)).headers({}))[b"link"]


def test_nothing_goes_sooner_than_the_policy_says() -> None:
    Deprecation(SINCE, SINCE + dt.timedelta(NOTICE_DAYS))
    with pytest.raises(ValueError, match="less than 180 days"):
        Deprecation(SINCE, SINCE + dt.timedelta(NOTICE_DAYS - 1))
