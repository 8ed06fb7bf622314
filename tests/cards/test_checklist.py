"""The readiness checklist as a table of dossiers: what each piece of evidence does to its point."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from salver.cards.checklist import Group, checklist, checklist_document
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.protocol.verdict import Verdict

DAY_S = 86_400.0


def point(dossier, name):
    return {each.name: each for each in checklist(dossier).points}[name]


def replaced(struct, path, value):
    """The struct with another value at the end of a path of fields."""
    first, _, rest = path.partition(".")
    inner = replaced(getattr(struct, first), rest, value) if rest else value
    return msgspec.structs.replace(struct, **{first: inner})


def test_a_version_about_which_everything_is_known_is_ready(desk) -> None:
    found = checklist(desk.dossier(desk.ready()))
    assert found.verdict is Verdict.SUCCESSFUL, found.reasons
    assert {each.group for each in found.points} == set(Group)
    assert [each.name for each in found.points if each.required and each.remedy] == []


def test_a_bare_version_is_inconclusive_and_told_what_to_do(desk) -> None:
    found = checklist(desk.dossier(desk.register()))
    assert found.verdict is Verdict.INCONCLUSIVE
    todo = {each.name: each.remedy for each in found.points if each.required and each.remedy}
    assert set(todo) == {
        "described", "training data known", "verified", "starts and bears load", "evaluated", "owner", "licence",
        "intended use",
    }  # fmt: skip
    assert todo["owner"] == 'salver describe digits@1.0.0 --set owner="..."'


@pytest.mark.parametrize(
    ("path", "value", "name", "verdict"),
    [
        ("key_id", "", "signed", "failed"),
        ("revoked", "stolen", "not revoked", "failed"),
        ("page.stage", "archived", "not on its way out", "failed"),
        ("page.stage", "rejected", "not on its way out", "failed"),
        ("retirement", "unused", "not on its way out", "failed"),
        ("page.emergency", True, "gates kept", "failed"),
        ("page.description.owner", " ", "owner", "inconclusive"),
        ("page.description.licence", "", "licence", "inconclusive"),
        ("page.description.training_data", None, "training data known", "inconclusive"),
        ("page.manifest.profile", None, "profile", "inconclusive"),
        ("page.manifest.digest", "0" * 64, "evaluated", "inconclusive"),
        ("page.manifest.digest", "0" * 64, "starts and bears load", "inconclusive"),
        ("page.manifest.digest", "0" * 64, "verified", "inconclusive"),
        ("page.manifest.trusts_code", True, "no code inside", "inconclusive"),
        ("approvals_asked", 2, "approved", "inconclusive"),
    ],
)
def test_evidence_that_is_missing_or_speaks_against_it_shows_at_its_point(desk, path, value, name, verdict) -> None:
    dossier = desk.dossier(desk.ready())
    found = point(replaced(dossier, path, value), name)
    assert found.verdict == verdict, found
    assert found.remedy


def test_old_evidence_is_inconclusive_and_so_is_what_comes_from_the_future(desk) -> None:
    dossier = desk.dossier(desk.ready())
    for at_s in (dossier.at_s + 31 * DAY_S, dossier.at_s - DAY_S):
        later = msgspec.structs.replace(dossier, at_s=at_s)
        assert point(later, "evaluated").verdict is Verdict.INCONCLUSIVE
        assert point(later, "starts and bears load").verdict is Verdict.INCONCLUSIVE
    assert point(msgspec.structs.replace(dossier, at_s=dossier.at_s + 29 * DAY_S), "evaluated").verdict == "successful"


def test_the_newest_evaluation_of_every_suite_counts(desk) -> None:
    version = desk.ready()
    desk.record(version, "release", "failed", data_rows=501)
    assert point(desk.dossier(version), "evaluated").verdict is Verdict.FAILED
    desk.record(version, "release", data_rows=502)
    assert point(desk.dossier(version), "evaluated").verdict is Verdict.SUCCESSFUL
    desk.record(version, "comparison", "failed", data_rows=502)
    assert point(desk.dossier(version), "evaluated").verdict is Verdict.SUCCESSFUL, "it says how two differ"


def test_a_record_that_cannot_be_read_is_an_error(desk) -> None:
    dossier = desk.dossier(desk.ready())
    broken = msgspec.structs.replace(dossier.evaluations[0], verdict=Verdict.ERROR, problem="torn")
    found = checklist(msgspec.structs.replace(dossier, evaluations=(broken, *dossier.evaluations)))
    assert found.verdict is Verdict.ERROR


def test_what_its_suite_looked_at_is_advised_only(desk) -> None:
    version = desk.ready()
    check = {"name": "fairness", "role": "safeguard", "verdict": "failed", "reasons": ["women are refused"]}
    desk.record(version, "people", checks=[check])
    dossier = desk.dossier(version)
    found = point(dossier, "fairness looked at")
    assert (found.verdict, found.said, found.required) == (Verdict.FAILED, "women are refused", False)
    assert checklist(dossier).verdict is Verdict.SUCCESSFUL


def test_memory_that_no_deployment_gives_it_is_a_failure(desk) -> None:
    dossier = desk.dossier(desk.ready())
    tight = DeploymentSpec("digits", "digits", "1.0.0", worker_memory_bytes=2**20)
    found = point(msgspec.structs.replace(dossier, deployments=(tight,)), "memory fits")
    assert (found.verdict, found.required) == (Verdict.FAILED, True)


def test_a_version_that_never_served_is_no_way_back(desk) -> None:
    desk.ready()
    found = point(desk.dossier(desk.ready("b")), "way back")
    assert (found.verdict, found.required) == (Verdict.INCONCLUSIVE, False)
    assert found.said == "no other version was in production or deployed: there is nothing to go back to"


def test_the_way_back_leads_to_what_was_in_production_or_deployed(desk) -> None:
    first, second = desk.ready(desk.stored(b"one")), desk.ready(desk.stored(b"two"))
    desk.records.deployments.deploy(desk.admin, DeploymentSpec("digits", "digits", first))
    assert point(desk.dossier(second), "way back").said == "1.0.0 was deployed and can be loaded"
    assert point(desk.dossier(second), "way back breaks nobody").verdict is Verdict.SUCCESSFUL
    desk.bring(second, Stage.VALIDATION, Stage.STAGING, Stage.PRODUCTION)
    third = desk.ready(desk.stored(b"three"))
    assert point(desk.dossier(third), "way back").said == "1.0.1 is in production and can be loaded"
    desk.bring(second, Stage.STAGING)
    assert point(desk.dossier(third), "way back").said == "1.0.1 was in production and can be loaded"


def test_what_cannot_be_loaded_any_more_is_no_way_back(desk) -> None:
    lost, revoked, archived = (desk.ready(desk.stored(name)) for name in (b"one", b"two", b"three"))
    for version in (lost, revoked, archived):
        desk.bring(version, Stage.VALIDATION, Stage.STAGING, Stage.PRODUCTION)
    desk.records.revocations.revoke(desk.admin, "digits", revoked, "poisoned")
    desk.bring(archived, Stage.ARCHIVED)
    last = desk.ready(desk.stored(b"four"))
    assert point(desk.dossier(last), "way back").said == "1.0.0 was in production and can be loaded"
    shutil.rmtree(desk.home.blobs_path)
    found = point(desk.dossier(last), "way back")
    assert (found.verdict, found.required) == (Verdict.INCONCLUSIVE, True)
    assert found.said == (
        "of what served before it none can be loaded: 1.0.2 was in production and is archived; "
        "1.0.1 was in production and was revoked: poisoned; 1.0.0 was in production and has lost its file model.onnx"
    )
    assert checklist(desk.dossier(archived)).verdict is Verdict.FAILED, "it is archived itself"


def test_an_approval_counts_unless_it_is_the_authors(desk) -> None:
    version = desk.ready()
    desk.records.policies.set(
        desk.admin, '[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "approvals"\n'
    )
    missing = point(desk.dossier(version), "approved")
    assert (missing.verdict, missing.required) == (Verdict.INCONCLUSIVE, True)
    desk.records.approvals.approve(desk.bob, "digits", version, Stage.VALIDATION)
    found = point(desk.dossier(version), "approved")
    assert (found.verdict, found.said) == (Verdict.SUCCESSFUL, "approved by bob")
    own = msgspec.structs.replace(
        desk.dossier(version), page=replaced(desk.dossier(version).page, "registered_by", "bob")
    )
    assert point(own, "approved").verdict is Verdict.INCONCLUSIVE


def test_one_point_less_never_makes_a_version_readier(desk) -> None:
    """Whatever piece of evidence is taken away, a version is at most as ready as before."""
    order = [Verdict.SUCCESSFUL, Verdict.INCONCLUSIVE, Verdict.FAILED, Verdict.ERROR]
    dossier = desk.dossier(desk.ready())
    whole = order.index(checklist(dossier).verdict)
    for field, nothing in {"key_id": "", "evaluations": (), "findings": {}, "approvals": (), "ways_back": ()}.items():
        assert order.index(checklist(msgspec.structs.replace(dossier, **{field: nothing})).verdict) >= whole


def test_the_page_says_what_is_to_be_done(desk) -> None:
    page = checklist_document(checklist(desk.dossier(desk.register())))
    assert page.verdict == "inconclusive"
    assert page.sections[0].tables[0].title == "To be done"
    assert [each.heading for each in page.sections[1:]] == [
        "Packaging", "Registry", "Infrastructure", "API", "Performance", "Monitoring", "Rollback", "Governance",
    ]  # fmt: skip
