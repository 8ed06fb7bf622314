from __future__ import annotations

import numpy as np
import pytest
from tests.registry.finding import DIGEST, fill

from salver.protocol.errors import SalverError
from salver.registry.conditions import condition_of
from salver.registry.facts import read_pages
from salver.registry.filters import DEEPEST, LONGEST, parse_filter
from salver.registry.search import Search
from salver.registry.semantic import Embeddings
from salver.storage.schema import versions

F0, F1, F2 = "fraud@1.0.0", "fraud@1.0.1", "fraud@1.0.2"
C0, C1, W, T0, T1 = "credit@1.0.0", "credit@1.0.1", "weather@1.0.0", "text@1.0.0", "text@1.0.1"
ALL = {F0, F1, F2, C0, C1, W, T0, T1}


@pytest.fixture
def pages(catalog, database, journal, clock, admin, draft):
    """Everything about the eight versions."""
    fill(catalog, database, journal, clock, admin, draft)
    with database.read() as connection:
        keys = [tuple(row) for row in connection.execute(versions.select().with_only_columns(*list(versions.c)[:2]))]
        return read_pages(connection, keys)


def passing(pages, text: str) -> set[str]:
    wanted = parse_filter(text)
    return {f"{model}@{version}" for (model, version), facts in pages.items() if wanted.holds(facts)}


PASSING = (
    ("name = fraud", {F0, F1, F2}),
    ("name ~ 'FRAU*' and not version = 1.0.2", {F0, F1}),
    ("name in [fraud, 'text']", {F0, F1, F2, T0, T1}),
    ("metrics.auc >= 0.9", {F0, F1}),
    ("metrics.auc > 0.9 or owner = ann", {F1, C0}),
    ("metrics.auc < 0.8", {C0}),
    ('metrics."top 5" = 0.5', {F1}),
    ("licence != GPL-3.0", ALL - {F0}),
    ("not licence = 'GPL-3.0' and exists licence", {F1}),
    ("stage = production", {F1}),
    ("stage = development", ALL - {F1, C0}),
    ("stage in [archived, production]", {F1, C0}),
    ("emergency = true", {F1}),
    ("held = false", ALL),
    ("alias = champion", {F1}),
    ("exists alias", {F1}),
    ("exists deployed", set()),
    ("tags.team = risk", {F0, F1}),
    ("tags.tier > 1", {F1}),
    ("tags.live = true", {C0}),
    ("tags.live = 'true'", {C0}),
    ("hyperparameters.shuffle = true", {F1}),
    ("hyperparameters.depth in [2, 3]", {F1}),
    ("hyperparameters.loss ~ hin*", {F1}),
    ("hyperparameters.loss > 3", set()),
    (f"training_data.digest ~ *{DIGEST}", {F1}),
    ("training_data.rows >= 1e3", {F1}),
    ("version > 1.0.0 and name = fraud", {F1, F2}),
    ("kind = embed", {W}),
    ("input = town", {C0, C1}),
    ("input_datatype = BYTES", {C0, C1}),
    ("label = bad", {C0, C1}),
    ("size_bytes = 10", ALL),
    ("registered >= 2023-11-14 and registered <= 2023-11-14", ALL),
    ("registered = 2023-11-14", ALL),
    ("registered > 2023-11-14", set()),
    ("registered < 2023-11-14T22:13:20.4Z", {F0}),
    ("registered_by = a-admin", ALL),
    ("(name = fraud or name = text) and (ordinal = 1)", {F0, T0}),
    ("NOT NOT name = weather", {W}),
    ("name = fraud and version = 1.0.0 or name = weather", {F0, W}),
)


def test_a_filter_lets_through_what_it_says(pages) -> None:
    for text, wanted in PASSING:
        assert passing(pages, text) == wanted, text


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", 1, "the end stands where a field is missing"),
        ("auc >= 0.9", 1, "there is no field 'auc'"),
        ("licens = x", 1, "no field 'licens'"),
        ("metrics >= 0.9", 1, "no field 'metrics'"),
        ("metrics.auc >= high", 16, "is compared with high"),
        ("metrics.auc >= nan", 16, "is compared with nan"),
        ("stage = prod", 9, "is compared with prod"),
        ("version > one", 11, "is compared with one"),
        ("registered > 2026-13-01", 14, "is compared with 2026-13-01"),
        ("registered > 2026-01-01T00:00:00", 14, "is compared with"),
        ("held = maybe", 8, "is compared with maybe"),
        ("held > true", 6, "is true or false"),
        ("name fraud", 6, "behind name stands fraud"),
        ("name = ", 8, "the end stands where a value is missing"),
        ("name = 'fraud", 8, "a text does not end"),
        ("name = fraud stage = production", 14, "stage is not expected here"),
        ("(name = fraud", 14, "where ) is missing"),
        ("name in fraud", 9, "where [ is missing"),
        ("name in [fraud", 15, "where ] is missing"),
        ("name = fraud and", 17, "the end stands where a field is missing"),
        ("exists", 7, "where a field is missing"),
        ("name = a) or (name = b", 9, ") is not expected here"),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, at: int, says: str) -> None:
    with pytest.raises(SalverError) as caught:
        parse_filter(text)
    assert caught.value.code == "INVALID_PARAMETER"
    assert f"character {at}:" in caught.value.message
    assert says in caught.value.message
    line, mark = caught.value.message.splitlines()[1:]
    assert len(line) <= 2 + len(text)
    assert mark.index("^") == at + 1


def test_a_filter_is_finite() -> None:
    deep = "not " * DEEPEST + "held = true"
    assert parse_filter(deep)
    for text in (f"not {deep}", "(" * 5000, "name = x or " * 250 + "name = x", "x" * (LONGEST + 1)):
        with pytest.raises(SalverError):
            parse_filter(text[: LONGEST + 1])


def test_the_mark_stands_under_the_place_also_of_a_long_filter_with_odd_signs() -> None:
    with pytest.raises(SalverError) as caught:
        parse_filter("name = 'a\tb\x1b[31m' and " * 20 + "auc = 1")
    line, mark = caught.value.message.splitlines()[1:]
    assert line[mark.index("^") :].startswith("auc")
    assert line.isprintable()


def random_filter(rng: np.random.Generator, depth: int = 3) -> str:
    tests = [
        *("name = fraud", "name ~ *r*", "name in [credit, text]", "name > fraud", "name != credit", "format = onnx"),
        *("kind != predict", "digest > 5", "registered < 2023-11-15", "registered > 2023-11-13", "exists registered"),
        *("stage = development", "stage in [production, development]", "stage != archived", "emergency = true"),
        *("emergency = false", "held = false", "alias = champion", "alias ~ ch*", "alias != champion", "exists alias"),
        *("tags.team = risk", "tags.team != risk", "tags.tier >= 2", "exists tags.tier", "tags.team in [risk, loans]"),
        *("tags.team > m", "metrics.auc >= 0.9", "owner = ann", "exists licence", "deployed = x", "label = bad"),
        *("version >= 1.0.1", "input = town", "size_bytes > 9", "hyperparameters.depth = 3", "tags.team ~ R*"),
    ]
    kind = rng.integers(4) if depth else 3
    if kind == 0:
        return f"not ({random_filter(rng, depth - 1)})"
    if kind in (1, 2):
        word = (" and ", " or ")[kind - 1]
        return word.join(f"({random_filter(rng, depth - 1)})" for _ in range(2))
    return str(rng.choice(tests))


def test_the_database_says_the_same_as_the_filter(pages, database) -> None:
    """A condition that lets too little through, or claims to be exact and is not, would show here."""
    search, rng = Search(database, Embeddings(database)), np.random.default_rng(7)
    exact = 0
    for _ in range(150):
        text = random_filter(rng)
        found = search.find(filter=text, limit=100)
        assert {hit.reference for hit in found.hits} == passing(pages, text), text
        assert found.total == len(found.hits)
        exact += condition_of(parse_filter(text), ["fraud", "credit", "weather", "text"]).exact
    assert 20 < exact < 145


def test_a_pattern_is_short_enough_not_to_keep_everybody_waiting() -> None:
    assert parse_filter(f"description ~ '{'a' * 200}'")
    with pytest.raises(SalverError, match="at character 15: the pattern has 201 characters"):
        parse_filter(f"description ~ '{'a' * 201}'")
