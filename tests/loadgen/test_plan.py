from __future__ import annotations

import pytest

from salver.loadgen import LoadPlan, Mode
from salver.protocol.errors import SalverError


@pytest.mark.parametrize(
    "changes",
    [
        {"duration_s": 0.0},
        {"duration_s": 601.0},
        {"duration_s": float("nan")},
        {"warmup_s": -1.0},
        {"connections": 0},
        {"connections": 4097},
        {"timeout_s": float("inf")},
        {"max_backlog": 0},
        {"max_samples": 10**9},
        {"mode": Mode.OPEN},
        {"mode": Mode.OPEN, "rate_per_s": -1.0},
        {"mode": Mode.OPEN, "rate_per_s": float("nan")},
        {"mode": Mode.OPEN, "rate_per_s": 1e9},
        {"path": "x"},
        {"path": "/a b"},
        {"path": "/a\r\nx: y"},
        {"headers": (("a b", "c"),)},
        {"headers": (("a", "c\r\nd: e"),)},
        {"headers": (("Content-Length", "1"),)},
        {"headers": (("transfer-encoding", "chunked"),)},
        {"url": "ftp://x"},
        {"url": "http://"},
        {"url": "http://x/path"},
        {"url": "http://x:99999"},
        {"url": "http://me@x"},
        {"url": "localhost:8080"},
        {"url": "http://[x"},
        {"url": "http://é"},
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(changes):
    with pytest.raises(SalverError) as caught:
        LoadPlan(**({"url": "http://127.0.0.1:1", "path": "/"} | changes)).check()
    assert caught.value.code == "INVALID_SETTING"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, False),
        ("https://example.org/", "example.org", 443, True),
        ("http://[::1]:80", "::1", 80, False),
    ],
)
def test_a_url_names_host_port_and_tls(url, host, port, tls):
    server = LoadPlan(url, "/").check()
    assert (server.host, server.port, server.tls) == (host, port, tls)


def test_a_given_host_header_replaces_ours():
    plan = LoadPlan("http://127.0.0.1:1", "/", headers=(("Host", "other"),))
    assert plan.requests(plan.check())[0].lower().count(b"host:") == 1
