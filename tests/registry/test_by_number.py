"""Versions in the order of their numbers, in both databases: found without reading the others."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import msgspec
import pytest
from sqlalchemy import event, insert
from tests.registry.promoting import Promoting

from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.by_number import neighbours
from salver.registry.catalog import Listing, version_row
from salver.registry.numbering import number
from salver.registry.stages import VersionStage, write_stage
from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.storage.schema import models, versions
from salver.testing import make_manifest

MANY = 300


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Iterator[Promoting]:
    if request.param == "postgresql":
        monkeypatch.setenv("SALVER_STORAGE_DATABASE", request.getfixturevalue("postgres_url"))
    home = Home.open(tmp_path / "home")
    database = open_database(home)
    yield Promoting(home, database)
    database.close()


@contextlib.contextmanager
def watched(house: Promoting, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many statements are sent, and how many manifests are decoded."""
    counts = {"statements": 0, "manifests": 0}
    decode = msgspec.json.decode

    def note(*_: object) -> None:
        counts["statements"] += 1

    def counted(text: object, **given: object) -> object:
        counts["manifests"] += given.get("type") is VersionManifest
        return decode(text, **given)

    engine = house.records.database._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(msgspec.json, "decode", counted)
            yield counts
    finally:
        event.remove(engine, "before_cursor_execute", note)


def fill(database: Database, *numbers: str, model: str = "digits") -> None:
    with database.begin() as connection:
        connection.execute(insert(models).values(name=model, created_s=1.0))
        for ordinal, each in enumerate(numbers, 1):
            manifest = make_manifest(model=model, version=each, ordinal=ordinal)
            connection.execute(insert(versions).values(version_row(manifest, 1.0, "ann")))


@pytest.mark.parametrize(
    "wanted", [None, "1.0.0", "1.0.299", "latest", "production", "development", "archived", "best"]
)
def test_a_lookup_reads_one_version_however_many_there_are(house: Promoting, monkeypatch, wanted) -> None:
    fill(house.records.database, *(f"1.0.{patch}" for patch in range(MANY)))
    with house.records.database.begin() as connection:
        for patch in range(MANY):
            stage = Stage.ARCHIVED if patch < 200 else Stage.REJECTED if patch > 250 else Stage.DEVELOPMENT
            if patch == 200:
                stage = Stage.PRODUCTION
            if patch != 249:
                write_stage(connection, VersionStage("digits", f"1.0.{patch}", stage, 1.0))
    house.records.descriptions.alias(house.root, "digits", "best", "1.0.7")
    with watched(house, monkeypatch) as counts:
        found = house.records.pages.number_of("digits", wanted)
    expected = {"production": "1.0.200", "archived": "1.0.199", "best": "1.0.7", "1.0.0": "1.0.0", "1.0.299": "1.0.299"}
    assert found == expected.get(str(wanted), "1.0.250")
    assert counts["manifests"] == 1
    assert counts["statements"] <= 4, "also those that begin and end a transaction"


def test_registering_reads_as_much_of_many_versions_as_of_few(house: Promoting, monkeypatch, draft) -> None:
    fill(house.records.database, *(f"1.0.{patch}" for patch in range(MANY)))
    fill(house.records.database, "1.0.0", "1.0.1", "1.0.2", "1.0.3", model="few")
    seen = []
    for model in ("few", "digits"):
        with watched(house, monkeypatch) as counts:
            house.register(draft(model=model))
        seen.append(counts)
    assert seen[0] == seen[1]


def test_all_models_are_listed_without_reading_a_manifest(house: Promoting, monkeypatch) -> None:
    fill(house.records.database, *(f"1.0.{patch}" for patch in range(MANY)), "2.0.0-rc.1")
    fill(house.records.database, "0.1.0-rc.1", model="only-candidates")
    with watched(house, monkeypatch) as counts:
        found = house.records.catalog.models()
    assert [(each.name, each.versions, each.newest, each.latest) for each in found] == [
        ("digits", MANY + 1, "2.0.0-rc.1", "1.0.299"),
        ("only-candidates", 1, "0.1.0-rc.1", None),
    ]
    assert counts["manifests"] == 0


def test_versions_are_listed_page_by_page_from_either_end(house: Promoting, monkeypatch) -> None:
    fill(house.records.database, *(f"1.{minor}.0" for minor in range(25)))
    catalog = house.records.catalog

    def ordinals(**listing) -> list[int]:
        return [each.ordinal for each in catalog.versions("digits", Listing(**listing))]

    assert ordinals() == list(range(1, 26))
    assert ordinals(limit=10) == list(range(1, 11))
    assert ordinals(limit=10, after=20) == [21, 22, 23, 24, 25]
    assert ordinals(limit=3, last=True) == [25, 24, 23]
    assert ordinals(limit=3, last=True, before=23) == [22, 21, 20]
    assert ordinals(after=25) == []
    with watched(house, monkeypatch) as counts:
        ordinals(limit=4)
    assert counts["manifests"] == 4
    with pytest.raises(SalverError, match="there is no model 'digit'"):
        catalog.versions("digit", Listing(after=3))


def test_the_highest_and_those_that_are_named_come_by_number(house: Promoting) -> None:
    fill(house.records.database, "1.10.0", "1.9.0", "2.0.0-rc.1", "1.2.0", "0.3.0")
    found = house.records.catalog.highest("digits", 2, {"0.3.0"})
    assert [each.version for each in found.manifests] == ["0.3.0", "1.10.0", "2.0.0-rc.1"]
    assert found.total == 5
    assert len(house.records.catalog.highest("digits", 9, ()).manifests) == 5


def test_a_number_found_among_neighbours_is_the_one_found_among_all(house: Promoting) -> None:
    rng = random.Random(7)
    outputs = [TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "FP32", (-1,)), TensorSpec("w", "FP32", (-1,))]
    x = TensorSpec("x", "FP32", (-1, 4))

    def some(version: str, ordinal: int = 1) -> VersionManifest:
        signature = Signature((x,), tuple(rng.sample(outputs, rng.randint(1, 3))))
        return make_manifest(model=name, version=version, ordinal=ordinal, signature=signature)

    def any_number() -> str:
        core = ".".join(str(rng.randint(0, 3)) for _ in range(3))
        return core + rng.choice(["", "", "", "-rc.1", "-rc.10", "+b", "-a+b"])

    for turn in range(12):
        name = f"m{turn}"
        known = [some(each, at) for at, each in enumerate(sorted({any_number() for _ in range(12)}), 1)]
        with house.records.database.begin() as connection:
            connection.execute(insert(models).values(name=name, created_s=1.0))
            connection.execute(insert(versions), [version_row(each, 1.0, "ann") for each in known])
        with house.records.database.read() as connection:
            for wanted in (None, *(any_number() for _ in range(20))):
                fresh = some("0.0.0")
                asked = None if wanted is None else SemanticVersion.parse(wanted)
                near = neighbours(connection, name, asked)
                assert outcome(near, fresh, wanted) == outcome(known, fresh, wanted), (wanted, known)


def outcome(known, fresh: VersionManifest, wanted: str | None) -> object:
    try:
        return number(known, fresh, wanted)
    except SalverError as error:
        return error.message, error.remedy
