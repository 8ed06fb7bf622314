"""What may be deployed where a policy has gates: nothing that has not passed them."""

from __future__ import annotations

import pytest
from tests.registry.promoting import Promoting

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.registry.policy import parse_policy

APPROVED = """
[[transition]]
to = "production"
[[transition.gate]]
kind = "approvals"
"""


@pytest.fixture
def house(home, database) -> Promoting:
    return Promoting(home, database)


def deploy(house: Promoting, version: str, endpoint: str = "digits") -> None:
    house.records.deployments.deploy(house.ann, DeploymentSpec(endpoint, "digits", version))


def is_refused(house: Promoting, version: str, endpoint: str = "digits") -> str:
    with pytest.raises(SalverError) as raised:
        deploy(house, version, endpoint)
    assert raised.value.code == "REFUSED_BY_POLICY"
    return raised.value.message


def test_what_was_refused_before_production_is_not_deployed_from_staging(house, draft) -> None:
    house.policy(APPROVED)
    version = house.register(draft())
    house.bring(version, "validation", "staging")
    assert not house.promote(version, "production").moved
    assert is_refused(house, version) == (
        "digits@1.0.0 is in staging; only versions in production, or there before, may be deployed (deploy_from)"
    )
    house.promote(version, "production", house.root, emergency=True, why="fire")
    deploy(house, version)


def test_what_was_in_production_before_is_deployed_again_from_staging(house, draft) -> None:
    first, second = house.register(draft("a")), house.register(draft("b"))
    house.bring(first, "validation", "staging", "production")
    house.bring(second, "validation", "staging", "production")
    house.policy(APPROVED)
    deploy(house, first)
    house.bring(first, "validation", "staging")
    is_refused(house, first, "other")


@pytest.mark.parametrize("way", ["archived", "revoked"])
def test_what_was_put_away_since_is_not(house, draft, way) -> None:
    version = house.register(draft())
    house.bring(version, "validation", "staging", "production", "staging")
    house.policy(APPROVED)
    if way == "revoked":
        house.records.revocations.revoke(house.ann, "digits", version, "poisoned")
    else:
        house.bring(version, "archived", "staging")
    is_refused(house, version)


def test_a_version_in_shadow_has_an_endpoint_for_that_and_no_other(house, draft) -> None:
    house.policy('[[model]]\nshadow_endpoints = ["try-*"]\n' + APPROVED)
    version = house.register(draft())
    house.bring(version, "validation", "staging", "shadow")
    assert "shadow on endpoints called try-*" in is_refused(house, version, "digits-shadow")
    deploy(house, version, "try-digits")
    house.policy(APPROVED)
    deploy(house, version, "digits-shadow")
    is_refused(house, version)


def test_the_policy_may_name_stages_before_its_gates_and_then_they_are_deployed_from(house, draft) -> None:
    house.policy('[[model]]\ndeploy_from = ["staging"]\n' + APPROVED)
    version = house.register(draft())
    house.bring(version, "validation", "staging")
    deploy(house, version)
    house.promote(version, "production", house.root, emergency=True, why="fire")
    is_refused(house, version, "other")


@pytest.mark.parametrize(
    ("gated", "open_"),
    [
        ({}, "development validation staging shadow production"),
        ({"production": []}, "production"),
        ({"production": ["staging"]}, "development validation staging shadow production"),
        ({"production": ["staging"], "shadow": []}, "shadow production"),
        ({"staging": []}, "staging shadow production"),
        ({"validation": []}, "validation staging shadow production"),
        ({"archived": []}, "development validation staging shadow production"),
    ],
)
def test_deployed_is_from_where_production_is_reached_past_no_gate(gated, open_) -> None:
    text = "".join(
        f'[[transition]]\nto = "{to}"\nfrom = {sources}\n[[transition.gate]]\nkind = "approvals"\n'
        for to, sources in gated.items()
    )
    assert parse_policy(text).deployable("digits") == tuple(map(Stage, open_.split()))
