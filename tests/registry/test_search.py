from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import delete, select
from tests.registry.finding import fill

from salver.protocol.errors import SalverError
from salver.registry.descriptions import Descriptions
from salver.registry.search import Meaning, Search
from salver.registry.semantic import Embedder, Embeddings
from salver.registry.terms import rank, words_of
from salver.storage.registry_schema import embeddings as vectors
from salver.storage.registry_schema import terms

EMBEDDER = Embedder("meanings", "minilm@1.0.0", "text", "embedding")


@pytest.fixture
def filled(catalog, database, journal, clock, admin, draft):
    fill(catalog, database, journal, clock, admin, draft)


@pytest.fixture
def embeddings(database) -> Embeddings:
    return Embeddings(database)


@pytest.fixture
def search(filled, database, embeddings) -> Search:
    return Search(database, embeddings)


@pytest.fixture
def descriptions(database, journal, clock) -> Descriptions:
    return Descriptions(database, journal, clock)


def found(search: Search, words: str, **options) -> list[str]:
    return [hit.reference for hit in search.find(words, **options).hits]


def test_words_are_found_wherever_they_stand(search) -> None:
    assert set(found(search, "fraudulent")) == {"fraud@1.0.0", "fraud@1.0.1"}
    assert set(found(search, "RISK team")) == {"fraud@1.0.0", "fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}
    assert found(search, "town") == ["credit@1.0.1", "credit@1.0.0"]  # an input; the shorter card first
    assert found(search, "nothing at all like this") == []
    assert found(search, "!?") == []


def test_the_last_word_may_go_on(search) -> None:
    assert found(search, "wea") == found(search, "weather") == ["weather@1.0.0"]
    assert found(search, "wea rain") == ["weather@1.0.0"]
    assert found(search, "wea nothing") == []


def test_a_name_weighs_more_than_a_mention_and_a_whole_word_more_than_a_beginning(search, descriptions, admin) -> None:
    descriptions.describe(admin, "weather", "1.0.0", {"description": "Nothing to do with fraud"})
    assert found(search, "fraud")[-1] == "weather@1.0.0"
    descriptions.describe(admin, "text", "1.0.1", {"description": "sun"})
    descriptions.describe(admin, "text", "1.0.0", {"description": "sunday"})
    assert found(search, "sun")[:2].index("text@1.0.1") < found(search, "sun").index("text@1.0.0")


def test_rare_words_count_more_than_common_ones(database, search) -> None:
    with database.read() as connection:
        ranked, total = rank(connection, "classification rain")
    assert ranked[0][0] == "weather"
    assert total == 3
    assert all(score > 0 for *_, score in ranked)


def test_words_and_a_filter_hold_together(search) -> None:
    assert found(search, "fraudulent payments", filter="metrics.auc > 0.9") == ["fraud@1.0.1"]
    assert found(search, "fraudulent payments", filter="stage = development") == ["fraud@1.0.0"]
    limited = search.find("fraudulent", "stage in [development, production]", limit=1)
    assert (len(limited.hits), limited.total, limited.way) == (1, 2, "words")


def test_the_index_is_never_behind(search, descriptions, admin, catalog, draft) -> None:
    catalog.add_version(admin, draft("f", model="bare"))
    assert found(search, "bare") == ["bare@1.0.0"]
    descriptions.describe(admin, "bare", "1.0.0", {"intended_use": "astronomy"})
    assert found(search, "astronomy") == ["bare@1.0.0"]
    descriptions.tag(admin, "bare", "1.0.0", {"place": "observatory"})
    assert found(search, "observatory astronomy") == ["bare@1.0.0"]
    descriptions.tag(admin, "bare", "1.0.0", {"place": None})
    descriptions.describe(admin, "bare", "1.0.0", {"intended_use": None})
    assert found(search, "observatory") == found(search, "astronomy") == []


def test_a_change_that_fails_changes_no_words(search, database, descriptions, admin, monkeypatch) -> None:
    monkeypatch.setattr(type(descriptions), "_record", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        descriptions.describe(admin, "weather", "1.0.0", {"description": "hail"})
    assert found(search, "hail") == []
    assert found(search, "rain") == ["weather@1.0.0"]


def test_versions_from_before_the_index_are_indexed_once(search, database) -> None:
    with database.begin() as connection:
        connection.execute(delete(terms))
    assert found(search, "weather") == []
    assert search.catch_up() == 8
    assert found(search, "weather") == ["weather@1.0.0"]
    assert search.catch_up() == 0


def test_hits_show_what_is_known(search) -> None:
    (hit,) = search.find(filter="alias = champion").hits
    assert (hit.stage, hit.aliases, hit.metrics["auc"], hit.tags["team"]) == ("production", ("champion",), 0.95, "risk")
    assert hit.score is None


@pytest.mark.parametrize(
    "asked", [{}, {"words": " "}, {"words": "x" * 3000}, {"words": "x", "limit": 0}, {"words": "x", "limit": 10**6}]
)
def test_what_cannot_be_asked_is_refused(search, asked) -> None:
    with pytest.raises(SalverError) as caught:
        search.find(**asked)
    assert caught.value.code == "INVALID_PARAMETER"


def test_words_have_one_form() -> None:
    assert words_of("Ünïcode \uff21\uff22 x_y foo-bar 3.5") == ["ünïcode", "ab", "x", "y", "foo", "bar", "3", "5"]


# By meaning.


def embedded(texts: list[str]) -> np.ndarray:
    """Texts about money point one way, all others the other."""
    words = ("payment", "pays", "bank", "fraud")
    return np.array([[1, 0.1] if any(w in text.lower() for w in words) else [0.1, 1] for text in texts], np.float32)


def keep_all(embeddings: Embeddings) -> int:
    cards, _ = embeddings.waiting(EMBEDDER, 100)
    if cards:
        embeddings.keep(EMBEDDER, cards, embedded([card.text for card in cards]))
    return len(cards)


def meaning(text: str) -> Meaning:
    return Meaning(EMBEDDER, embedded([text]))


def test_what_means_the_same_is_found_without_a_word_in_common(search, embeddings) -> None:
    assert keep_all(embeddings) == 8
    hits = search.find("bank robbery", meaning=meaning("bank robbery")).hits
    assert {hit.model for hit in hits[:4]} == {"fraud", "credit"}
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)
    answer = search.find("bank", "metrics.auc < 0.9", meaning=meaning("bank"))
    assert [hit.reference for hit in answer.hits] == ["credit@1.0.0"]
    assert (answer.way, answer.embedder) == ("meaning", "minilm@1.0.0")


def test_a_vector_is_of_the_text_as_it_is_now(search, embeddings, descriptions, admin, database) -> None:
    keep_all(embeddings)
    descriptions.describe(admin, "weather", "1.0.0", {"run_id": "9"})  # no part of the text
    assert embeddings.waiting(EMBEDDER, 100)[1] == 0
    descriptions.describe(admin, "weather", "1.0.0", {"description": "Forecasts bank accounts"})
    (card,), total = embeddings.waiting(EMBEDDER, 100)
    assert (card.model, total) == ("weather", 1)
    descriptions.tag(admin, "fraud", "1.0.0", {"new": "tag"})
    assert embeddings.waiting(EMBEDDER, 100)[1] == 2
    other = EMBEDDER._replace(reference="minilm@2.0.0")
    assert embeddings.waiting(other, 3)[1] == 8
    with database.read() as connection:
        assert embeddings.nearest(connection, other, embedded(["x"])) == ([], 0)


def test_a_vector_of_a_text_that_was_changed_meanwhile_is_not_kept(search, embeddings, descriptions, admin, database):
    cards, _ = embeddings.waiting(EMBEDDER, 100)
    descriptions.describe(admin, "weather", "1.0.0", {"description": "something else"})
    embeddings.keep(EMBEDDER, cards, embedded([card.text for card in cards]))
    assert [card.model for card in embeddings.waiting(EMBEDDER, 100)[0]] == ["weather"]
    with database.read() as connection:
        assert len(connection.execute(select(vectors)).all()) == 7


@pytest.mark.parametrize(
    "bad",
    [np.ones((8, 2), np.float64), np.ones((7, 2), np.float32), np.ones(8, np.float32), np.full((8, 2), np.nan, "f4")],
)
def test_what_is_no_vector_is_refused(search, embeddings, bad) -> None:
    cards, _ = embeddings.waiting(EMBEDDER, 100)
    with pytest.raises(SalverError) as caught:
        embeddings.keep(EMBEDDER, cards, bad)
    assert caught.value.code == "BAD_MODEL_OUTPUT"
    assert embeddings.waiting(EMBEDDER, 100)[1] == 8
