from __future__ import annotations

import pytest

from salver.protocol.errors import SalverError
from salver.registry.catalog import Catalog
from salver.registry.isolations import IsolatedVersion, Isolations
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.isolation import Cause, isolate, read_isolated
from salver.storage.journal import Journal


@pytest.fixture
def isolations(home: Home, database: Database, journal: Journal) -> Isolations:
    return Isolations(home, database, journal)


@pytest.fixture
def crashed(catalog: Catalog, home: Home, admin, draft) -> str:
    """The digest of an artifact registered under two names, which crashed a server process."""
    digests = {catalog.add_version(admin, draft("a", model=name))[0].digest for name in ("digits", "numbers")}
    catalog.add_version(admin, draft("b", version="2.0.0"))
    (digest,) = digests
    isolate(home, [digest], Cause.CRASHED, 5.0)
    return digest


def test_an_isolated_artifact_is_listed_with_all_its_names_and_its_cause(
    isolations: Isolations, home: Home, crashed: str
) -> None:
    isolate(home, ["f" * 64], Cause.HUNG, 6.0)
    known = IsolatedVersion(crashed, ("digits@1.0.0", "numbers@1.0.0"), "crashed", 5.0)
    assert isolations.list() == (IsolatedVersion("f" * 64, (), "hung", 6.0), known)


def test_ending_it_is_for_those_who_may_deploy_and_on_the_journal(
    isolations: Isolations, home: Home, journal: Journal, principal, crashed: str
) -> None:
    (before,) = isolations.list()
    for role in ("developer", "approver", "predictor"):
        with pytest.raises(SalverError) as caught:
            isolations.end(principal(role), "digits@1.0.0")
        assert caught.value.code == "PERMISSION_DENIED"
    assert isolations.end(principal("operator"), "numbers@1.0.0") == before
    assert read_isolated(home) == {}
    record = journal.records(limit=100)[-1]
    assert (record.actor, record.action, record.subject) == ("a-operator", "end_isolation", "numbers@1.0.0")
    assert record.details["before"]["digest"] == crashed


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("digits@2.0.0", "NOT_FOUND"),
        ("digits@9.0.0", "NOT_FOUND"),
        ("nothing", "NOT_FOUND"),
        ("Bad Name", "INVALID_NAME"),
        ("digits@one", "NOT_FOUND"),
    ],
)
def test_what_is_not_isolated_or_not_there_is_refused(
    isolations: Isolations, journal: Journal, admin, crashed: str, reference: str, code: str
) -> None:
    before = journal.head()
    with pytest.raises(SalverError) as caught:
        isolations.end(admin, reference)
    assert caught.value.code == code
    assert journal.head() == before


def test_a_file_that_cannot_be_written_takes_its_record_with_it(
    isolations: Isolations, home: Home, journal: Journal, admin, crashed: str, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise SalverError("STORAGE_FULL", "no space is left")

    monkeypatch.setattr("salver.storage.isolation.write_json", full)
    before = journal.head()
    with pytest.raises(SalverError):
        isolations.end(admin, "digits@1.0.0")
    assert journal.head() == before
    assert set(read_isolated(home)) == {crashed}
