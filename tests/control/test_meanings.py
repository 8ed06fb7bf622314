from __future__ import annotations

import numpy as np
import pytest

from salver.clock import SYSTEM_CLOCK
from salver.control.actions.search import SEARCH, OfSearch
from salver.control.administration import LocalAdministration
from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import DeploymentSpec, FileEntry
from salver.registry.draft import VersionDraft
from salver.registry.semantic import Embedder
from salver.security.access import local_principal
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.testing import ManualClock

PLAIN = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
ENCODER = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("vector", "FP32", (-1, 2)),))


class Served:
    """Stands for the endpoint: texts of money one way, others the other; takes a second for each call."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.texts: list[str] = []
        self.problem: SalverError | None = None

    def __call__(self, embedder: Embedder, texts) -> np.ndarray:
        assert (embedder.endpoint, embedder.input, embedder.output) == ("meanings", "text", "vector")
        if self.problem:
            raise self.problem
        self.clock.advance(1.0)
        self.texts += texts
        return np.array([[1, 0] if "money" in text or "loans" in text else [0, 1] for text in texts], np.float32)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def served(clock) -> Served:
    return Served(clock)


@pytest.fixture
def admin(tmp_path, clock, served):
    home = Home.open(tmp_path / "home")
    database = open_database(home)
    yield LocalAdministration(home, database, local_principal(), clock, embed=served)
    database.close()


def register(admin, model: str, signature=PLAIN, **fields) -> None:
    files = (FileEntry("model.onnx", f"{len(model):064x}", 10),)
    draft = VersionDraft(model, "onnx", files, signature, **fields)
    admin.records.catalog.add_version(admin.principal, draft)


@pytest.fixture
def filled(admin):
    register(admin, "loans", description=Description(description="Who pays back"))
    register(admin, "weather", description=Description(description="Rain"))
    register(admin, "encoder", ENCODER, kind="embed")
    return admin


def deploy(admin, endpoint="meanings", model="encoder") -> None:
    admin.records.deployments.deploy(admin.principal, DeploymentSpec(endpoint, model, "1.0.0"))


def search(admin, words="money", **asked):
    return admin.do(SEARCH, OfSearch(words, semantic=True, **asked))


def test_meanings_are_asked_of_the_deployed_model_and_kept(filled, served) -> None:
    deploy(filled)
    found = search(filled)
    assert (found.hits[0].model, found.way, found.notes) == ("loans", "meaning", ())
    assert found.embedder == "encoder@1.0.0"
    asked = len(served.texts)
    search(filled)
    assert len(served.texts) == asked + 1  # the question alone


def test_without_a_deployed_model_words_count_and_the_answer_says_so(filled, served) -> None:
    deploy(filled, "plain", "weather")
    found = search(filled, "rain")
    assert (found.hits[0].model, found.way) == ("weather", "words")
    assert "no embedding model is deployed" in found.notes[0]
    assert served.texts == []


def test_a_model_that_does_not_answer_is_no_reason_to_find_nothing(filled, served) -> None:
    deploy(filled)
    served.problem = SalverError("NOT_READY", "no healthy replica")
    found = search(filled, "rain")
    assert (found.hits[0].model, found.way) == ("weather", "words")
    assert "meanings does not answer" in found.notes[0]
    assert "no healthy replica" in found.notes[0]


def test_where_nothing_serves_words_count(filled) -> None:
    deploy(filled)
    filled.meanings = type(filled.meanings)(filled.records.embeddings, None, SYSTEM_CLOCK)
    assert "nothing serves meanings now" in search(filled, "rain").notes[0]
    with pytest.raises(SalverError) as caught:
        filled.meanings.refresh()
    assert caught.value.code == "NOT_READY"


def test_a_search_waits_only_so_long_for_vectors_and_says_what_it_could_not_find(filled, served, clock, monkeypatch):
    from salver.control import meanings

    monkeypatch.setattr(meanings, "_AT_ONCE", 1)
    monkeypatch.setattr(meanings, "_SEARCH_S", 1.5)
    deploy(filled)
    found = search(filled)
    assert len(found.hits) == 2
    assert "1 versions have no vector yet" in found.notes[0]
    assert filled.meanings.refresh().waiting == 0
    assert len(search(filled).hits) == 3


def test_a_meaning_needs_words(filled) -> None:
    with pytest.raises(SalverError) as caught:
        search(filled, " ", filter="name = loans")
    assert caught.value.code == "INVALID_PARAMETER"


def test_what_is_no_encoder_of_texts_is_not_asked(admin) -> None:
    two = Signature((TensorSpec("a", "BYTES", (-1,)), TensorSpec("b", "BYTES", (-1,))), ENCODER.outputs)
    register(admin, "twofold", two, kind="embed")
    deploy(admin, "meanings", "twofold")
    assert admin.records.embeddings.embedder() is None
