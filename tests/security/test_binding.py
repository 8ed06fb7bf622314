from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.errors import SalverError
from salver.security.binding import Binding, allowed_host, check_binding

LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST", "localhost.", "::ffff:127.0.0.1"]
ELSEWHERE = [
    "0.0.0.0",
    "::",
    "",
    "192.168.1.5",
    "10.0.0.1",
    "fe80::1",
    "example.com",
    "localhost.example.com",
    "128.0.0.1",
]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("insecure", [False, True])
def test_loopback_is_free_and_never_counts_as_insecure(host: str, insecure: bool) -> None:
    decision = check_binding(host, has_tls=False, has_credentials=False, insecure=insecure)
    assert decision == Binding(host, loopback=True, insecure=False)


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize(
    ("has_tls", "has_credentials", "missing"),
    [(False, False, "TLS and credentials"), (True, False, "credentials"), (False, True, "TLS")],
)
def test_elsewhere_needs_tls_and_credentials_or_the_override(
    host: str, has_tls: bool, has_credentials: bool, missing: str
) -> None:
    with pytest.raises(SalverError, match=f"without {missing} would") as raised:
        check_binding(host, has_tls=has_tls, has_credentials=has_credentials, insecure=False)
    assert raised.value.code == "REFUSED_BY_POLICY"
    for word in ("--tls-cert", "--tls-key", "--insecure"):
        assert word in raised.value.remedy
    overridden = check_binding(host, has_tls=has_tls, has_credentials=has_credentials, insecure=True)
    assert overridden == Binding(host, loopback=False, insecure=True)


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize("insecure", [False, True])
def test_elsewhere_with_tls_and_credentials_is_not_insecure(host: str, insecure: bool) -> None:
    decision = check_binding(host, has_tls=True, has_credentials=True, insecure=insecure)
    assert decision == Binding(host, loopback=False, insecure=False)


@pytest.mark.parametrize(
    "header",
    ["127.0.0.1", "127.0.0.1:8090", "localhost", "LocalHost:8090", "localhost.", "[::1]", "[::1]:8090", "127.1.2.3:1"],
)
@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_listener_answers_to_loopback_names(header: str, bound: str) -> None:
    assert allowed_host(header, bound)


BAD_EVERYWHERE = [
    "",
    " ",
    "evil.example",
    "evil.example:8090",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost:",
    "localhost:0",
    "localhost:65536",
    "localhost:8090:8090",
    "localhost:eighty",
    "localhost:\uff18\uff10",  # digits elsewhere in Unicode
    "user@localhost",
    "http://localhost",
    "localhost/path",
    "localhost, evil.example",
    "localhost evil.example",
    "localhost\r\nX: y",
    "localhost\n",
    "localhost\x00",
    "localhost..",
    ".",
    "::1",
    "[::1",
    "::1]",
    "[localhost]",
    "[::1]evil.example",
    "[1.2.3]",
    "[]",
    "l\u043ecalhost",  # a Cyrillic letter
    "x" * 300,
]


@pytest.mark.parametrize("header", BAD_EVERYWHERE)
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::", "192.168.1.5", "models.example"])
def test_other_names_and_garbage_are_refused_by_every_listener(header: str, bound: str) -> None:
    assert not allowed_host(header, bound)


@pytest.mark.parametrize("header", ["192.168.1.5", "10.0.0.1:8090", "0.0.0.0", "[fe80::1]"])
def test_a_loopback_listener_does_not_answer_to_other_addresses(header: str) -> None:
    assert not allowed_host(header, "127.0.0.1")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "[::]", ""])
def test_a_listener_on_all_addresses_answers_to_address_literals_only(bound: str) -> None:
    for header in ("192.168.1.5:8090", "[2001:db8::1]:8090", "127.0.0.1", "localhost"):
        assert allowed_host(header, bound)
    assert not allowed_host("models.example", bound)
    assert allowed_host("models.example", bound, ["models.example"])


def test_a_listener_on_one_address_or_name_answers_to_that() -> None:
    assert allowed_host("192.168.1.5:8090", "192.168.1.5")
    assert not allowed_host("192.168.1.6", "192.168.1.5")
    assert not allowed_host("localhost", "192.168.1.5")
    assert allowed_host("[2001:DB8:0::1]:8090", "2001:db8::1")
    assert allowed_host("Models.Example.:443", "models.example")
    assert not allowed_host("other.example", "models.example")


def test_further_names_are_compared_like_hosts() -> None:
    extra = ["Models.Example:443", "my_service", "[2001:db8::1]"]
    for header in ("models.example", "MODELS.example.:8090", "my_service:80", "[2001:db8::1]"):
        assert allowed_host(header, "127.0.0.1", extra)
    for header in ("", "*", "sub.models.example"):
        assert not allowed_host(header, "127.0.0.1", [*extra, "", "*", "not a host"])


@given(st.text(max_size=40))
def test_no_header_raises(header: str) -> None:
    assert allowed_host(header, "127.0.0.1") in (True, False)
