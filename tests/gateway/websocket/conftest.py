"""Servers of these tests' own: what they publish is seen by no others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.gateway.servers import Serve, Served

from salver.gateway.limits import Limits


@pytest.fixture(scope="session")
def ordinary(serve_model: Serve) -> Served:
    return serve_model(Limits(body_bytes=4 * 2**20, inflight_bytes=16 * 2**20))


@pytest.fixture(scope="session")
def impatient(serve_model: Serve) -> Served:
    return serve_model(
        Limits(
            header_timeout_s=0.3,
            body_grace_s=0.3,
            body_bytes_per_s=20_000.0,
            keep_alive_s=0.5,
            write_stall_s=0.4,
            linger_s=0.1,
        )
    )


@pytest.fixture
def server(ordinary: Served) -> Iterator[Served]:
    yield ordinary
    ordinary.settle()


@pytest.fixture
def hasty(impatient: Served) -> Iterator[Served]:
    yield impatient
    impatient.settle()
