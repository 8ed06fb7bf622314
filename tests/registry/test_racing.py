"""Two servers on one database that change the same things at once: one order for all, and nobody is told a lie."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.registry.promoting import Promoting

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.registry.lifecycle import PromotionRequest
from salver.storage.database import open_database
from salver.storage.home import Home


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request, tmp_path, monkeypatch) -> Iterator[tuple[Promoting, Promoting]]:
    """Two that have one database open, each for itself, as two servers do."""
    if request.param == "postgresql":
        monkeypatch.setenv("SALVER_STORAGE_DATABASE", request.getfixturevalue("postgres_url"))
    home = Home.open(tmp_path / "home")
    databases = [open_database(home) for _ in range(2)]
    yield Promoting(home, databases[0]), Promoting(home, databases[1])
    for database in databases:
        database.close()


def race(*acts: Callable[[], object]) -> list[object]:
    """What each of them gave or raised, begun at one moment."""
    told: list[object] = [None] * len(acts)
    start = threading.Barrier(len(acts))

    def run(place: int, act: Callable[[], object]) -> None:
        start.wait()
        try:
            told[place] = act()
        except SalverError as error:
            told[place] = error.code

    threads = [threading.Thread(target=run, args=each) for each in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def test_of_two_that_register_other_bytes_under_one_number_one_wins(two, draft) -> None:
    for number in range(4):
        version = f"1.0.{number}"
        ours, theirs = (draft(content, version=version) for content in ("01", "23", "45", "67")[number])
        told = race(lambda ours=ours: two[0].register(ours), lambda theirs=theirs: two[1].register(theirs))
        assert sorted(map(str, told)) == sorted([version, "ALREADY_EXISTS"])
    assert [each.version for each in two[0].records.catalog.versions("digits")] == [f"1.0.{n}" for n in range(4)]


def test_of_two_that_promote_one_version_elsewhere_one_moves_it(two, draft) -> None:
    for number in range(5):
        version = two[0].register(draft("abcde"[number]))
        two[0].bring(version, "validation")
        requests = [
            PromotionRequest("digits", version, target, if_stage=Stage.VALIDATION)
            for target in (Stage.STAGING, Stage.REJECTED)
        ]
        told = race(*(lambda h=h, r=r: h.lifecycle.promote(h.ann, r).moved for h, r in zip(two, requests, strict=True)))
        assert sorted(map(str, told)) == ["CONFLICT", "True"]


def test_deployments_of_two_follow_one_another(two, draft) -> None:
    for content in "ab":
        two[0].register(draft(content))

    def deploy(house: Promoting, version: str) -> list[int]:
        spec = DeploymentSpec("digits", "digits", version)
        return [house.records.deployments.deploy(house.ann, spec).generation for _ in range(10)]

    told = race(lambda: deploy(two[0], "1.0.0"), lambda: deploy(two[1], "1.0.1"))
    generations = [*told[0], *told[1]]
    assert len(set(generations)) == 20
    records = [each for each in two[0].records.journal.records(1000) if each.action == "deploy"]
    assert [each.details["after"]["generation"] for each in records] == sorted(generations)
    for before, after in itertools.pairwise(records):
        assert after.details["before"] == before.details["after"], "each knows what it has replaced"
    (now,) = two[1].records.deployments.list()
    assert now.generation == max(generations)


def test_of_two_that_move_an_alias_from_where_it_is_one_is_told(two, draft) -> None:
    versions = [two[0].register(draft(content)) for content in "abc"]
    two[0].records.descriptions.alias(two[0].ann, "digits", "champion", versions[0])
    told = race(
        *(
            lambda h=h, v=v: h.records.descriptions.alias(h.ann, "digits", "champion", v, versions[0])
            for h, v in zip(two, versions[1:], strict=True)
        )
    )
    assert told.count("CONFLICT") == 1
    assert two[0].records.journal.verify().ok
