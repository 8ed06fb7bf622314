from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.registry.catalog import Catalog
from salver.registry.deploy_request import DeployRequest, requested_spec
from salver.registry.deployments import Deployments


@pytest.fixture
def manifest(catalog: Catalog, admin, draft) -> Any:
    return catalog.add_version(admin, draft()).manifest


CURRENT = DeploymentSpec(
    "digits", "digits", "0.9.0", 7, policy="hybrid", max_wait_s=0.01, min_batch=2, max_batch=8, placement="thread"
)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({}, {}),
        ({"max_batch": 16}, {"max_batch": 16}),
        ({"policy": "timeout"}, {"policy": "timeout", "min_batch": 1}),
        ({"policy": "eager"}, {"policy": "eager", "min_batch": 1, "max_wait_s": 0.0}),
        ({"policy": "eager", "max_wait_s": 0.5}, {"policy": "eager", "min_batch": 1, "max_wait_s": 0.5}),
        ({"runtime": {"threads": 2}}, {"runtime": {"threads": 2}}),
    ],
)
def test_what_is_not_given_stays_unless_the_policy_that_is_given_does_not_heed_it(manifest, settings, changed) -> None:
    current = msgspec.convert(msgspec.to_builtins(CURRENT) | {"runtime": {"optimization": "basic"}}, DeploymentSpec)
    made = requested_spec(DeployRequest("digits", settings=settings), manifest, current)
    wanted = msgspec.to_builtins(current) | changed | {"version": "1.0.0"}
    if "runtime" in changed:
        wanted["runtime"] = {"optimization": "basic", "threads": 2}
    assert made == msgspec.convert(wanted, DeploymentSpec)


def test_an_endpoint_that_is_new_or_another_models_begins_with_the_defaults(manifest) -> None:
    plain = DeploymentSpec("shop", "digits", "1.0.0")
    assert requested_spec(DeployRequest("digits", endpoint="shop"), manifest, None) == plain
    others = msgspec.structs.replace(CURRENT, endpoint="shop", model="iris")
    assert requested_spec(DeployRequest("digits", endpoint="shop"), manifest, others) == plain


def test_a_setting_of_the_wrong_kind_is_named(manifest) -> None:
    with pytest.raises(SalverError, match="replicas") as raised:
        requested_spec(DeployRequest("digits", settings={"replicas": "2"}), manifest, None)
    assert raised.value.code == "INVALID_SETTING"


def test_of_two_at_once_neither_forgets_what_the_other_has_set(
    manifest, deployments: Deployments, admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments.change(admin, DeployRequest("digits"))
    other = threading.Thread(target=deployments.change, args=(admin, DeployRequest("digits", settings={"replicas": 3})))

    def meanwhile(*given: Any) -> DeploymentSpec:
        monkeypatch.undo()
        other.start()
        other.join(0.1)  # it ends only where the first does not keep it out
        return requested_spec(*given)

    monkeypatch.setattr("salver.registry.deployments.requested_spec", meanwhile)
    deployments.change(admin, DeployRequest("digits", settings={"max_batch": 8}))
    other.join()
    (now,) = deployments.list()
    assert (now.replicas, now.max_batch) == (3, 8)


def test_who_may_not_deploy_is_told_before_anything_is_looked_up(deployments: Deployments, principal) -> None:
    with pytest.raises(SalverError) as raised:
        deployments.change(principal("developer"), DeployRequest("nothing"))
    assert raised.value.code == "PERMISSION_DENIED"
