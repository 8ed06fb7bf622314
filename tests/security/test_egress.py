"""Where this server lets itself be sent: nowhere but the open internet, however the address is written."""

import pytest

from salver.protocol.errors import SalverError
from salver.security.egress import is_public, parse_target, require_public

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "fc00::1",
    "fd12:3456:789a::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2001:10::1",
    "100::1",
]
PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "172.32.0.1",
    "192.169.0.1",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_the_open_internet_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_the_open_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", ["", "localhost", "2130706433", "0x7f.1", "127.1", "1.1.1.1.", "::g"])
def test_what_is_no_address_is_not_public(address):
    assert not is_public(address)


def test_one_private_address_among_many_is_enough_to_refuse():
    require_public("h", ["1.1.1.1", "1.0.0.1"])
    for addresses in ([], ["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["1.1.1.1", "::1"]):
        with pytest.raises(SalverError, match="not public") as raised:
            require_public("h", addresses)
        assert raised.value.code == "REFUSED_BY_POLICY"


@pytest.mark.parametrize(
    ("url", "parts", "authority"),
    [
        ("https://a.example/x?y=1", ("https", "a.example", 443, "/x?y=1"), "a.example"),
        ("https://[2606:4700::1]:8443/", ("https", "2606:4700::1", 8443, "/"), "[2606:4700::1]:8443"),
        ("HTTPS://A.Example:443/", ("https", "a.example", 443, "/"), "a.example"),
    ],
)
def test_a_url_has_its_parts(url, parts, authority):
    target = parse_target(url)
    assert tuple(target) == parts
    assert target.authority == authority


def test_without_tls_goes_only_what_may_be_private():
    with pytest.raises(SalverError, match="its scheme is not https") as raised:
        parse_target("http://a.example:8080")
    assert raised.value.code == "INVALID_SETTING"
    target = parse_target("http://a.example:8080", allow_private=True)
    assert (tuple(target), target.authority) == (("http", "a.example", 8080, "/"), "a.example:8080")


@pytest.mark.parametrize(
    "url",
    [
        *("", "a.example", "//a.example/", "/path", "ftp://a.example/", "file:///etc/passwd", "gopher://a/"),
        "javascript:1",
        *("https://", "https:///x", "https://user@a.example/", "https://user:pw@a.example/", "https://a@b@c/"),
        *("https://a.example/#x", "https://a.example/ x", "https://a.example/\r\nHost: b", "https://a.example\\@b/"),
        *("https://a.example:0x50/", "https://a.example:99999/", "https://[::1/", "https://\u0430.example/"),
        *("https://a_b.example\x00/", "https://a.example/" + "x" * 2048, "unix:/run/docker.sock", "https://%31/"),
    ],
)
def test_an_odd_url_is_refused(url):
    with pytest.raises(SalverError) as raised:
        parse_target(url)
    assert raised.value.code == "INVALID_SETTING"
