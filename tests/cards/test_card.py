"""The model card: what is known stands in it, what is not is said not to be stated."""

from __future__ import annotations

import msgspec
import pytest
from tests.cards.facts import fact

from salver.cards.card import model_card
from salver.protocol.description import DataReference, Description
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.protocol.usage import Asking
from salver.registry.lifecycle import PromotionRequest

CHECKS = [
    {
        "name": "roc_auc",
        "role": "optimising",
        "verdict": "successful",
        "reasons": ["roc_auc 0.97 [0.95, 0.98], wanted at least 0.9"],
        "numbers": {"value": 0.97, "low": 0.95, "high": 0.98, "bound": 0.9},
    },
    {
        "name": "fairness",
        "role": "safeguard",
        "verdict": "inconclusive",
        "reasons": ["few rows"],
        "tables": [{"title": "Groups", "columns": ["group", "rate"], "rows": [["women", 0.5], ["men", 0.6]]}],
    },
]


def cells(document):
    return [cell for section in document.sections for table in section.tables for row in table.rows for cell in row]


def notes(document, heading):
    return next(section.notes for section in document.sections if section.heading == heading)


def test_every_field_that_somebody_stated_stands_in_the_card(desk) -> None:
    """A field that is added to the description and forgotten here fails this."""
    said = Description(
        **{field.name: f"stated-{field.name}" for field in msgspec.structs.fields(Description) if field.type is str},
        training_data=DataReference("stated-data", "s3://stated-uri", "ab" * 32, "stated-version", 7),
        hyperparameters={"stated-depth": 3},
        metrics={"stated-metric": 0.5},
    )
    version = desk.register()
    desk.describe(version, **msgspec.to_builtins(said))
    text = msgspec.json.encode(model_card(desk.dossier(version))).decode()
    missing = [
        field.name
        for field in msgspec.structs.fields(Description)
        if field.type is str and f"stated-{field.name}" not in text
    ]
    assert missing == ["environment", "environment_digest"], "of the lock file its length and digest are told"
    assert f"a lock file of 1 lines, SHA-256 {said.lock_digest}" in text
    for each in (
        "stated-data",
        "s3://stated-uri",
        "ab" * 32,
        "stated-version, 7 rows",
        "stated-depth",
        "stated-metric",
    ):
        assert each in text


def test_what_nobody_stated_is_said_not_to_be(desk) -> None:
    card = model_card(desk.dossier(desk.register()))
    for name in ("Description", "Owner", "Licence", "Intended use", "Limitations", "Training data", "Base model"):
        found = fact(card, name)
        assert (found.value, found.stated) == ("not stated", False)
    assert any("Not stated by anybody" in note for note in notes(card, "Caveats"))
    assert any("No evaluation" in note for note in notes(card, "Caveats"))


def test_identity_comes_from_the_registry(desk) -> None:
    version = desk.register()
    dossier = desk.dossier(version)
    card = model_card(dossier)
    assert card.title == "digits@1.0.0"
    assert fact(card, "SHA-256 of its files").value == dossier.manifest.digest
    assert fact(card, "Signed").value.endswith(dossier.key_id[:16])
    assert "by ann" in fact(card, "Registered").value
    assert "1000 rows of 'x' with 2 features" in fact(card, "Profile of the inputs").value


def test_evaluations_stand_with_intervals_and_tables_of_groups(desk) -> None:
    version = desk.register()
    desk.record(version, "release", data="held-out.csv", evaluated_rows=228, checks=CHECKS, reasons=["all is well"])
    card = model_card(desk.dossier(version))
    assert ("roc_auc", "0.97", "0.95 to 0.98", "0.9") in [
        row for section in card.sections for table in section.tables for row in table.rows
    ]
    assert {"women", "men"} <= set(cells(card))
    assert fact(card, "Rows evaluated").value == "228"


def test_only_what_was_found_about_these_bytes_counts(desk) -> None:
    version = desk.register()
    desk.record(version, "release", checks=CHECKS)
    dossier = desk.dossier(version)
    other = msgspec.structs.replace(dossier.manifest, digest="0" * 64)
    page = msgspec.structs.replace(dossier.page, manifest=other)
    card = model_card(msgspec.structs.replace(dossier, page=page))
    assert "roc_auc" not in cells(card)
    assert "None is recorded." in notes(card, "Evaluation")


def test_the_way_here_names_who_decided_who_approved_and_what_was_passed(desk) -> None:
    version = desk.register()
    desk.records.policies.set(
        desk.admin, '[[transition]]\nto = "validation"\n[[transition.gate]]\nkind = "approvals"\n'
    )
    desk.records.approvals.approve(desk.bob, "digits", version, Stage.VALIDATION)
    desk.records.lifecycle.promote(desk.admin, PromotionRequest("digits", version, Stage.VALIDATION))
    desk.records.lifecycle.promote(
        desk.admin, PromotionRequest("digits", version, Stage.STAGING, why="the old one burns", emergency=True)
    )
    card = model_card(desk.dossier(version))
    told = cells(card)
    assert "bob" in told
    assert "the old one burns" in told
    assert "moved, past its gates" in told
    assert fact(card, "Promoted past its gates").value.startswith("yes")
    assert any("past its gates" in warning for warning in card.warnings)


def test_deployments_and_use_are_told_without_the_names_of_clients(desk) -> None:
    version = desk.register()
    desk.records.deployments.deploy(desk.admin, DeploymentSpec("numbers", "digits", version))
    desk.records.usage.add([Asking("digits", version, "numbers", "secret-client", 42, desk.clock.wall_s())])
    card = model_card(desk.dossier(version))
    assert fact(card, "Deployed as").value == "numbers"
    assert fact(card, "Asked").value.startswith("42 requests of 1 clients")
    assert "secret-client" not in msgspec.json.encode(card).decode()
    assert "numbers" in cells(card)


def test_a_revoked_version_says_so_first(desk) -> None:
    version = desk.register()
    desk.records.revocations.revoke(desk.admin, "digits", version, "the labels were wrong")
    assert model_card(desk.dossier(version)).warnings[0] == "Revoked: the labels were wrong"


def test_what_it_was_made_of_and_what_was_made_of_it(desk) -> None:
    base = desk.register()
    tuned = desk.register("b")
    desk.describe(tuned, base_model=f"digits@{base}", training_data={"name": "scans"})
    assert f"version:digits@{base}" in cells(model_card(desk.dossier(tuned)))
    assert fact(model_card(desk.dossier(base)), "Versions based on this one").value == f"digits@{tuned}"


@pytest.mark.parametrize("checks", [[{"name": "odd", "tables": 3}], [{"name": "odd", "verdict": 7}]])
def test_a_record_with_odd_details_is_told_without_them(desk, checks) -> None:
    version = desk.register()
    desk.record(version, "release", checks=checks)
    assert "release" in cells(model_card(desk.dossier(version)))
