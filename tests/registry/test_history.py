from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete
from tests.homes import SteppingClock

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.registry.draft import VersionDraft
from salver.registry.history import History, history_of
from salver.registry.usage import Usage
from salver.security.access import Principal
from salver.storage.database import Database
from salver.storage.journal import Journal, occasion
from salver.storage.schema import deployments as deployments_table

DAY_S = 86_400.0
START_S = 1_700_000_000.0


class StandingClock(SteppingClock):
    """A clock that shows what it was set to."""

    def wall_s(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def versions(catalog: Catalog, admin: Principal, draft: Callable[..., VersionDraft]) -> dict[str, str]:
    """Digests of two versions of digits and one of iris, by NAME@VERSION."""
    made = [catalog.add_version(admin, draft(content)) for content in "ab"]
    made.append(catalog.add_version(admin, draft("c", model="iris")))
    return {added.manifest.reference: added.manifest.digest for added in made}


@pytest.fixture
def deploy(
    deployments: Deployments, clock: SteppingClock, principal: Callable[[str], Principal]
) -> Callable[..., DeploymentSpec]:
    def make(at_s: float, reference: str, endpoint: str = "digits", **settings: Any) -> DeploymentSpec:
        clock.now_s = at_s
        model, _, version = reference.partition("@")
        return deployments.deploy(principal("operator"), DeploymentSpec(endpoint, model, version, **settings))

    return make


def served(found: History) -> list[tuple[str, str, float, float | None]]:
    return [(each.endpoint, f"{each.model}@{each.version}", each.since_s, each.until_s) for each in found.served]


def test_what_served_at_a_moment_is_known_with_all_that_made_it(
    database: Database,
    versions: dict[str, str],
    deploy: Callable[..., DeploymentSpec],
    deployments: Deployments,
    admin: Principal,
    clock: SteppingClock,
) -> None:
    with occasion("req-1", "first release"):
        deploy(START_S + 10, "digits@1.0.0")
    second = deploy(START_S + 20, "digits@1.0.1", max_batch=8)
    clock.now_s = START_S + 30
    deployments.undeploy(admin, "digits")
    with database.begin() as connection:  # nothing of what served is in any other row
        connection.execute(delete(deployments_table))
    assert served(history_of(database, "digits", since_s=START_S + 9)) == []
    (first,) = history_of(database, "digits", since_s=START_S + 10).served
    assert (first.model, first.version, first.digest) == ("digits", "1.0.0", versions["digits@1.0.0"])
    assert (first.deployed_by, first.since_s, first.why, first.request_id) == (
        "a-operator",
        START_S + 10,
        "first release",
        "req-1",
    )
    assert (first.until_s, first.ended, first.ended_by, first.settings) == (START_S + 20, "deploy", "a-operator", {})
    (then,) = history_of(database, "digits", since_s=START_S + 29.9).served
    assert (then.version, then.settings, then.generation) == ("1.0.1", {"max_batch": 8}, second.generation)
    assert (then.until_s, then.ended, then.ended_by) == (START_S + 30, "undeploy", "a-admin")
    assert served(history_of(database, "digits", since_s=START_S + 30)) == []


def test_a_span_of_time_has_all_that_served_in_it(
    database: Database, versions: dict[str, str], deploy: Callable[..., DeploymentSpec]
) -> None:
    for at_s, reference in ((10, "digits@1.0.0"), (20, "digits@1.0.1"), (30, "digits@1.0.0")):
        deploy(START_S + at_s, reference)
    found = history_of(database, "digits", since_s=START_S + 15, until_s=START_S + 25)
    assert [each.version for each in found.served] == ["1.0.0", "1.0.1"]
    found = history_of(database, "digits", since_s=START_S, until_s=START_S + 5)
    assert found.served == ()


def test_a_model_is_found_on_all_its_endpoints_and_leaves_them_when_another_comes(
    database: Database, versions: dict[str, str], deploy: Callable[..., DeploymentSpec]
) -> None:
    deploy(START_S + 10, "digits@1.0.0", "one")
    deploy(START_S + 20, "digits@1.0.0", "two")
    deploy(START_S + 30, "iris@1.0.0", "one")
    at_s = START_S + 40
    assert [each.endpoint for each in history_of(database, "digits", since_s=START_S + 25).served] == ["one", "two"]
    assert [each.endpoint for each in history_of(database, "digits", since_s=at_s).served] == ["two"]
    assert [each.model for each in history_of(database, "one", since_s=at_s).served] == ["iris"]
    assert [each.model for each in history_of(database, "one").served] == ["digits", "iris"]
    assert served(history_of(database, "digits", endpoint="one")) == [
        ("one", "digits@1.0.0", START_S + 10, START_S + 30)
    ]


def test_the_whole_story_of_a_model_is_told_in_order_with_what_changed(
    database: Database,
    journal: Journal,
    versions: dict[str, str],
    deploy: Callable[..., DeploymentSpec],
    deployments: Deployments,
    admin: Principal,
) -> None:
    deploy(START_S + 10, "digits@1.0.0")
    with database.begin() as connection:
        details = {"source": "staging", "target": "production"}
        journal.append(connection, actor="ann", action="promote", subject="digits@1.0.1", details=details)
    deploy(START_S + 20, "digits@1.0.1", max_batch=8)
    deploy(START_S + 20, "iris@1.0.0", "iris")
    deployments.undeploy(admin, "digits")
    events = history_of(database, "digits").events
    assert [event.action for event in events] == ["register", "register", "deploy", "promote", "deploy", "undeploy"]
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert (events[3].reference, events[3].details) == ("digits@1.0.1", details)
    assert events[4].changes == {"max_batch": (None, 8), "version": ("1.0.0", "1.0.1")}
    assert (events[4].reference, events[5].reference) == ("digits@1.0.1", "digits@1.0.1")


def test_the_order_is_that_of_the_records_where_the_clock_went_back(
    database: Database, versions: dict[str, str], deploy: Callable[..., DeploymentSpec]
) -> None:
    deploy(START_S + 100, "digits@1.0.0")
    deploy(START_S + 50, "digits@1.0.1")
    deploy(START_S + 60, "digits@1.0.0", max_batch=4)
    found = history_of(database, "digits")
    assert [(each.version, each.until_seq) for each in found.served] == [("1.0.0", 5), ("1.0.1", 6), ("1.0.0", None)]
    assert [(jump.seq, jump.before_s, jump.at_s) for jump in found.jumps] == [
        (5, START_S + 100, START_S + 50),
        (6, START_S + 100, START_S + 60),
    ]
    then = history_of(database, "digits", since_s=START_S + 55)
    assert [each.version for each in then.served] == ["1.0.1"]
    assert [jump.seq for jump in then.jumps] == [5], "two moments are called so"
    sure = history_of(database, "digits", since_s=START_S + 200)
    assert ([each.seq for each in sure.served], sure.jumps) == ([6], ())


def test_a_deployment_without_a_digest_gets_that_of_its_registration(
    database: Database, journal: Journal, versions: dict[str, str]
) -> None:
    after = {"endpoint": "digits", "model": "digits", "version": "1.0.0", "generation": 3}
    with database.begin() as connection:
        details = {"before": None, "after": after}
        journal.append(connection, actor="ann", action="deploy", subject="digits", details=details)
    (found,) = history_of(database, "digits").served
    assert found.digest == versions["digits@1.0.0"]


def test_requests_are_those_counted_on_the_days_on_which_it_served(
    database: Database, versions: dict[str, str], deploy: Callable[..., DeploymentSpec]
) -> None:
    from salver.protocol.usage import Asking

    deploy(START_S, "digits@1.0.0")
    deploy(START_S + 2 * DAY_S, "digits@1.0.1")
    assert history_of(database, "digits").served[0].requests is None
    counted = ((0.0, "1.0.0", 5), (DAY_S, "1.0.0", 7), (9 * DAY_S, "1.0.0", 100), (2 * DAY_S, "1.0.1", 11))
    Usage(database).add(
        [Asking("digits", version, "digits", "ann", requests, START_S + at_s) for at_s, version, requests in counted]
    )
    assert [each.requests for each in history_of(database, "digits").served] == [12, 11]
    (then,) = history_of(database, "digits", since_s=START_S + DAY_S).served
    assert then.requests == 12


@pytest.mark.parametrize("name", ["nothing", "digit", "digits_", "1.0.0"])
def test_a_name_that_no_record_mentions_is_not_found(
    database: Database, versions: dict[str, str], deploy: Callable[..., DeploymentSpec], name: str
) -> None:
    deploy(START_S, "digits@1.0.0")
    with pytest.raises(SalverError, match="says nothing of") as refused:
        history_of(database, name)
    assert refused.value.code == "NOT_FOUND"


def test_more_records_than_can_be_told_are_refused(
    database: Database, versions: dict[str, str], deploy: Callable[..., DeploymentSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.registry.history._MOST_RECORDS", 3)
    deploy(START_S, "digits@1.0.0")
    deploy(START_S, "digits@1.0.1")
    with pytest.raises(SalverError, match="more than 3 records are about 'digits'"):
        history_of(database, "digits")
    assert len(history_of(database, "iris").events) == 1
