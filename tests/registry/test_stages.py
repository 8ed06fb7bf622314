from __future__ import annotations

import re

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.registry import stages
from salver.registry.stages import LIFECYCLE, VersionStage, require_way, stage_of, stages_of, write_stage


def test_the_diagram_is_the_table() -> None:
    drawn = re.findall(r"^    (\w+) --(\w+)--> (\w+)$", stages.__doc__ or "", re.MULTILINE)
    assert drawn
    assert sorted(drawn) == sorted((move.source, move.event, move.target) for move in LIFECYCLE.moves)


def test_every_stage_can_be_reached_and_only_rejected_is_final() -> None:
    reached = {Stage.DEVELOPMENT}
    while more := {move.target for move in LIFECYCLE.moves if move.source in reached} - reached:
        reached |= more
    assert reached == set(Stage)
    assert {stage for stage in Stage if not LIFECYCLE.moves_from(stage)} == {Stage.REJECTED}


def test_production_is_only_reached_from_staging_and_shadow() -> None:
    assert {move.source for move in LIFECYCLE.moves if move.target is Stage.PRODUCTION} == {Stage.STAGING, Stage.SHADOW}


def test_an_illegal_way_names_what_is_possible() -> None:
    with pytest.raises(
        SalverError, match=r"digits@1\.0\.0 is in development, from where it cannot go to production"
    ) as raised:
        require_way(VersionStage("digits", "1.0.0"), Stage.PRODUCTION)
    assert (raised.value.code, raised.value.http) == ("ILLEGAL_TRANSITION", 409)
    assert raised.value.remedy == "possible from there: validation, archived"
    with pytest.raises(SalverError, match="rejected is final: register another version"):
        require_way(VersionStage("digits", "1.0.0", Stage.REJECTED), Stage.STAGING)


def test_a_version_without_a_row_is_in_development(catalog, database, admin, draft) -> None:
    catalog.add_version(admin, draft("a"))
    catalog.add_version(admin, draft("b"))
    moved = VersionStage("digits", "1.0.1", Stage.STAGING, 5.0, emergency=True)
    with database.begin() as connection:
        write_stage(connection, moved)
        write_stage(connection, moved)
    with database.read() as connection:
        assert stage_of(connection, "digits", "1.0.0") == VersionStage("digits", "1.0.0", Stage.DEVELOPMENT)
        first, second = stages_of(connection, "digits")
        assert first == VersionStage("digits", "1.0.0", since_s=first.since_s), "where it is since it was registered"
        assert first.since_s is not None
        assert second == moved
        assert stages_of(connection) == stages_of(connection, "digits")
        assert stages_of(connection, "digits", after=1) == (second,)
        assert stages_of(connection, "none") == ()
