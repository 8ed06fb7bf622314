"""Servers of gRPC on real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.gateway.grpc.client import Http2Client, dial
from tests.gateway.servers import IMPATIENT, Serve, Served

from salver.gateway.limits import Limits


@pytest.fixture(scope="session")
def grpc_ordinary(serve_model: Serve) -> Served:
    """The limits people have, but fewer bytes in flight and streams."""
    return serve_model(Limits(inflight_bytes=192 * 2**20, streams=40), grpc=True)


@pytest.fixture(scope="session")
def grpc_impatient(serve_model: Serve) -> Served:
    """A server that waits for nobody."""
    return serve_model(IMPATIENT, grpc=True)


@pytest.fixture
def server(grpc_ordinary: Served) -> Iterator[Served]:
    yield grpc_ordinary
    grpc_ordinary.settle()


@pytest.fixture
def hasty(grpc_impatient: Served) -> Iterator[Served]:
    yield grpc_impatient
    grpc_impatient.settle()


@pytest.fixture
def client(server: Served) -> Http2Client:
    return dial(server)
