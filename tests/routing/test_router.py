from __future__ import annotations

import asyncio
from typing import Any

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.routing.router import Router, Target
from salver.testing import make_manifest, make_spec


class _Service:
    available = True

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        raise NotImplementedError


service = _Service()


def target(**changes: Any) -> Target:
    return Target(make_spec(), make_manifest(**changes), service)


@pytest.fixture
def router() -> Router:
    found = Router()
    found.publish(
        {"digits": target(version="2.1.0", ordinal=7), "iris": target()},
        {"loading": None, "broken": SalverError("CORRUPT_ARTIFACT", "bytes differ")},
    )
    return found


@pytest.mark.parametrize("version", [None, "2.1.0", "7"])
def test_an_endpoint_is_found_by_name_and_by_the_version_it_serves(router, version) -> None:
    assert router.resolve("digits", version).manifest.version == "2.1.0"


@pytest.mark.parametrize("version", ["2.1.1", "1", "07", "2.1", "", "v" * 1000])
def test_another_version_is_not_found_and_the_current_one_named(router, version) -> None:
    with pytest.raises(SalverError, match=r"its route leads to 2\.1\.0 \(ordinal 7\)") as raised:
        router.resolve("digits", version)
    assert raised.value.code == "NOT_FOUND"
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize(
    ("endpoint", "remedy"),
    [("loading", "it is loading; try again shortly"), ("broken", "its version failed to load: CORRUPT_ARTIFACT")],
)
def test_an_endpoint_without_a_service_is_not_ready_and_says_why(router, endpoint, remedy) -> None:
    with pytest.raises(SalverError) as raised:
        router.resolve(endpoint)
    assert (raised.value.code, raised.value.remedy) == ("NOT_READY", remedy)


def test_an_unknown_endpoint_is_answered_with_those_there_are(router) -> None:
    with pytest.raises(SalverError, match="there are broken, digits, iris, loading") as raised:
        router.resolve("x" * 10_000)
    assert raised.value.code == "NOT_FOUND"
    assert len(str(raised.value)) < 300
    with pytest.raises(SalverError, match="nothing is deployed"):
        Router().resolve("digits")


def test_of_many_endpoints_ten_are_named() -> None:
    router = Router()
    router.publish({f"e{n:02}": target() for n in range(13)}, {})
    with pytest.raises(SalverError, match=r"e00, .*e09 and 3 more"):
        router.resolve("other")


def test_a_table_is_replaced_whole(router) -> None:
    kept = router.resolve("digits")
    router.publish({"other": target()}, {})
    assert router.names() == ["other"]
    assert [name for name, _ in router.targets()] == ["other"]
    with pytest.raises(SalverError):
        router.resolve("digits")
    assert kept.manifest.version == "2.1.0", "who has resolved keeps the target"


def test_a_target_that_says_the_same_again_stays_the_one_it_was() -> None:
    router = Router()
    router.publish({"same": target(), "other": target()}, {})
    before = dict(router.targets())
    router.publish({"same": target(), "other": target(version="2.0.0")}, {})
    after = dict(router.targets())
    assert after["same"] is before["same"]
    assert after["other"].manifest.version == "2.0.0"
    router.publish({"same": target()._replace(service=_Service())}, {})
    assert router.resolve("same") is not before["same"], "another service is another target"


def test_a_published_table_does_not_change_with_the_callers_dictionary() -> None:
    router, targets = Router(), {"a": target()}
    router.publish(targets, {})
    targets.clear()
    assert router.names() == ["a"]
