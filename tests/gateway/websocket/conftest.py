"""Servers of these tests' own: what they publish is seen by no others."""

from __future__ import annotations

import pytest
from tests.gateway.servers import IMPATIENT, ORDINARY, Serve, Served


@pytest.fixture(scope="session")
def ordinary(serve_model: Serve) -> Served:
    return serve_model(ORDINARY)


@pytest.fixture(scope="session")
def impatient(serve_model: Serve) -> Served:
    return serve_model(IMPATIENT)
