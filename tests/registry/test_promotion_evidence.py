"""What a promotion reads: what it is compared with, and how little of it while others wait for the write lock."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import event
from tests.registry.promoting import Promoting, person

from salver.protocol.stages import Stage
from salver.registry import evidence
from salver.registry.lifecycle import PromotionRequest
from salver.storage.backends import WRITES
from salver.storage.database import Database

GAIN = """
[[transition]]
to = "production"
[[transition.gate]]
kind = "metric"
metric = "f1"
suite = "release"
gain_over_production = 0.01
"""
CHECKLIST = """
[[transition]]
to = "validation"
[[transition.gate]]
kind = "checklist"
name = "governance"
[[transition.gate]]
kind = "evaluation"
suite = "release"
"""


@pytest.fixture
def house(home, database, draft) -> Promoting:
    """1.0.0 is in production, with an f1 of 0.9; 1.0.1 would like to be, with one of 0.5."""
    made = Promoting(home, database)
    for content, f1 in (("a", 0.9), ("b", 0.5), ("c", 0.95)):
        version = made.register(draft(content))
        made.evaluate(version, numbers={"f1": f1})
    made.bring("1.0.0", "validation", "staging", "production")
    made.bring("1.0.1", "validation", "staging")
    made.bring("1.0.2", "validation", "staging")
    made.policy(GAIN)
    return made


def reasons(done) -> str:
    return " ".join(done.decision.reasons)


@pytest.mark.parametrize("way", [["staging"], ["archived"], ["staging", "archived"], ["staging", "validation"]])
def test_to_take_the_better_one_out_of_production_first_does_not_help_the_worse(house: Promoting, way) -> None:
    house.bring("1.0.0", *way)
    done = house.promote("1.0.1", "production")
    assert (done.moved, done.decision.verdict) == (False, "failed")
    assert "f1 is 0.5, last in production (1.0.0) 0.9: a gain of -0.4" in reasons(done)
    (gate,) = done.decision.gates
    assert [(each.kind, each.id) for each in gate.evidence[1:2]] == [("production", "1.0.0")]
    assert house.promote("1.0.2", "production").moved


def test_of_several_that_were_there_the_last_is_compared_with(house: Promoting) -> None:
    house.bring("1.0.2", "production")
    house.bring("1.0.2", "staging")
    assert "last in production (1.0.2) 0.95" in reasons(house.promote("1.0.1", "production"))
    house.policy(GAIN.replace("[[transition]]", "[[transition]]\nagain = true"))
    # Of itself nobody can be better; it comes back over the one before it.
    assert "last in production (1.0.0) 0.9: a gain of 0.05" in reasons(house.promote("1.0.2", "production"))


def test_words_that_somebody_typed_put_nothing_into_production(house: Promoting, draft) -> None:
    for content in "de":
        house.records.catalog.add_version(house.ann, draft(content, model="words"))

    def promote(version: str, target: str):
        why = 'see "target":"production"'
        return house.lifecycle.promote(house.ann, PromotionRequest("words", version, Stage(target), why))

    for version in ("1.0.0", "1.0.1"):
        assert promote(version, "validation").moved
        assert promote(version, "staging").moved
    assert "nothing is in production, and nothing ever was" in reasons(promote("1.0.1", "production"))


@contextlib.contextmanager
def under_the_lock(database: Database) -> Iterator[list[str]]:
    """The statements of transactions that write."""
    found: list[str] = []

    def note(connection, _cursor, statement, *_rest) -> None:
        if connection.get_execution_options()[WRITES]:
            found.append(statement)

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database._engine, "before_cursor_execute", note)


def flooded(house: Promoting, draft) -> str:
    """A version with many large evaluations, of which a gate asks for one suite, and a checklist."""
    house.policy(CHECKLIST)
    version = house.register(draft("d"))
    for number in range(30):
        numbers = {f"number{each}": 0.5 for each in range(1000)}
        house.evaluate(version, "failed", suite=f"suite{number % 3}", numbers=numbers, note=f"{number}" * 50_000)
    house.evaluate(version, by=person("ci", "developer"))
    return version


def test_no_evaluation_is_read_while_others_wait_for_the_write_lock(house: Promoting, database, draft) -> None:
    version = flooded(house, draft)
    with under_the_lock(database) as statements:
        done = house.promote(version, "validation")
    assert done.decision.gates[1].evidence[0].actor == "ci"
    assert statements
    assert not [each for each in statements if "evaluations" in each]
    assert len(statements) < 40


def test_under_the_lock_too_it_is_facts_of_the_suite_that_are_read_and_no_documents(
    house: Promoting, database, draft, monkeypatch
) -> None:
    """Where others change something between every look and its lock."""
    version = flooded(house, draft)
    house.policy(CHECKLIST.replace('kind = "checklist"\nname = "governance"\n[[transition.gate]]\n', ""))
    parsed, read, positions = [], evidence._evaluation, itertools.count()
    monkeypatch.setattr(evidence, "_evaluation", lambda row: parsed.append(row) or read(row))
    monkeypatch.setattr("salver.registry.lifecycle.journal_position", lambda _: next(positions))
    with under_the_lock(database) as statements:
        house.promote(version, "validation")
    assert not [each for each in statements if "document" in each and "evaluations" in each]
    assert 0 < len(parsed) <= 4 * 2
