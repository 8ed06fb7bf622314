from __future__ import annotations

import pytest

from salver.protocol.usage import Asking
from salver.registry.usage import Usage, VersionUse
from salver.storage.database import Database

DAY_S = 86_400.0


@pytest.fixture
def usage(database: Database) -> Usage:
    return Usage(database)


def asking(version="1.0.0", client="ci", requests=1, last_s=10 * DAY_S, endpoint="digits") -> Asking:
    return Asking("digits", version, endpoint, client, requests, last_s)


def test_counts_of_a_client_add_up_over_reports_and_days(usage: Usage) -> None:
    usage.add([asking(requests=3, last_s=10 * DAY_S), asking(requests=4, last_s=10 * DAY_S + 5)])
    usage.add([asking(requests=5, last_s=12 * DAY_S)])
    assert usage.of("digits") == (VersionUse("digits", "1.0.0", "digits", "ci", 12, 10 * DAY_S, 12 * DAY_S),)


def test_clients_endpoints_and_versions_are_kept_apart(usage: Usage) -> None:
    usage.add([asking(), asking(client="app"), asking(endpoint="other"), asking(version="2.0.0")])
    assert len(usage.of("digits")) == 4
    assert [use.version for use in usage.of("digits", "2.0.0")] == ["2.0.0"]
    assert usage.of("nothing") == ()
