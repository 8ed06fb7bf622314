from __future__ import annotations

import pytest

from salver.protocol.description import DataReference, Description
from salver.protocol.errors import SalverError
from salver.registry.descriptions import Descriptions
from salver.registry.pages import Pages
from salver.storage.registry_schema import stages
from salver.storage.schema import journal as journal_table


@pytest.fixture
def descriptions(database, journal, clock) -> Descriptions:
    return Descriptions(database, journal, clock)


@pytest.fixture
def pages(database) -> Pages:
    return Pages(database)


@pytest.fixture
def two(catalog, admin, draft):
    catalog.add_version(admin, draft("a", description=Description(owner="me"), tags={"team": "vision"}))
    catalog.add_version(admin, draft("b"))


def refused(call, *arguments) -> SalverError:
    with pytest.raises(SalverError) as caught:
        call(*arguments)
    return caught.value


def test_a_version_is_registered_with_what_is_said_of_it(two, pages) -> None:
    page = pages.page("digits", "1.0.0")
    assert (page.description, page.tags, page.stage) == (Description(owner="me"), {"team": "vision"}, "development")
    assert (page.registered_by, page.endpoints, page.aliases) == ("a-admin", (), ())


def test_what_is_said_is_merged_and_null_removes(two, descriptions, pages, admin) -> None:
    changes = {"metrics": {"auc": 0.9, "f1": 0.8}, "training_data": {"digest": "abc", "rows": 10}, "owner": None}
    descriptions.describe(admin, "digits", "1.0.0", changes)
    descriptions.describe(admin, "digits", "1.0.0", {"metrics": {"f1": None, "mcc": 1}})
    assert pages.page("digits", "1.0.0").description == Description(
        metrics={"auc": 0.9, "mcc": 1.0}, training_data=DataReference(digest="abc", rows=10)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": "x"},
        {"metrics": {"auc": "high"}},
        {"metrics": {"auc": float("nan")}},
        {"hyperparameters": {"lr": [1]}},
        {"hyperparameters": {"lr": float("inf")}},
        {"description": "x" * 2**20},
        {"description": "\ud800"},
        {"training_data": {"bytes": 5}},
    ],
)
def test_what_makes_no_sense_changes_nothing(two, descriptions, pages, admin, changes) -> None:
    assert refused(descriptions.describe, admin, "digits", "1.0.0", changes).code == "INVALID_PARAMETER"
    assert pages.page("digits", "1.0.0").description == Description(owner="me")


def test_saying_the_same_again_is_no_change(two, descriptions, admin, journal) -> None:
    before = journal.head()
    descriptions.describe(admin, "digits", "1.0.0", {"owner": "me"})
    descriptions.tag(admin, "digits", "1.0.0", {"team": "vision"})
    assert journal.head() == before


def test_tags_are_set_and_removed(two, descriptions, pages, admin) -> None:
    assert descriptions.tag(admin, "digits", "1.0.0", {"team": None, "a/b": "c d"}) == {"a/b": "c d"}
    for name, value in (("", "x"), ("-a", "x"), ("a b", "x"), ("ok", "line\nbreak"), ("ok", "x" * 2000)):
        assert refused(descriptions.tag, admin, "digits", "1.0.0", {name: value}).code == "INVALID_PARAMETER"
    assert refused(descriptions.tag, admin, "digits", "1.0.0", {f"t{n}": "" for n in range(101)})
    assert pages.page("digits", "1.0.0").tags == {"a/b": "c d"}


def test_an_alias_stands_for_one_version_and_is_moved(two, descriptions, pages, admin) -> None:
    assert descriptions.alias(admin, "digits", "champion", "1.0.0").before is None
    moved = descriptions.alias(admin, "digits", "champion", "1.0.1", "1.0.0")
    assert (moved.before.version, moved.after.version) == ("1.0.0", "1.0.1")
    assert pages.page("digits", "champion").manifest.version == "1.0.1"
    assert pages.page("digits", "champion").aliases == ("champion",)
    descriptions.alias(admin, "digits", "champion", None)
    assert refused(pages.page, "digits", "champion").code == "NOT_FOUND"


def test_of_two_who_move_an_alias_from_the_same_version_one_is_told(two, descriptions, admin) -> None:
    descriptions.alias(admin, "digits", "champion", "1.0.0", "")
    assert refused(descriptions.alias, admin, "digits", "champion", "1.0.1", "").code == "CONFLICT"


@pytest.mark.parametrize("alias", ["production", "latest", "1champion", "A", "../x", "archived", ""])
def test_an_alias_is_no_stage_number_or_odd_name(two, descriptions, admin, alias) -> None:
    assert refused(descriptions.alias, admin, "digits", alias, "1.0.0").code == "INVALID_NAME"


def test_only_who_may_deploy_moves_aliases_and_only_who_may_register_describes(two, descriptions, principal) -> None:
    developer, predictor = principal("developer"), principal("predictor")
    descriptions.describe(developer, "digits", "1.0.0", {"owner": "you"})
    assert refused(descriptions.alias, developer, "digits", "champion", "1.0.0").code == "PERMISSION_DENIED"
    assert refused(descriptions.describe, predictor, "digits", "1.0.0", {"owner": "x"}).code == "PERMISSION_DENIED"


def test_what_is_called_a_version_is_found(two, catalog, descriptions, pages, admin, database) -> None:
    with database.begin() as connection:
        connection.execute(
            stages.insert().values(
                model="digits", version="1.0.0", stage="production", since_s=1.0, emergency=False, sort_key=""
            )
        )
    assert pages.number_of("digits", "production") == "1.0.0"
    assert pages.number_of("digits", "development") == pages.number_of("digits", "latest") == "1.0.1"
    assert pages.number_of("digits", None) == "1.0.1"
    for wanted in ("staging", "nobody", "9.9.9", "", "@"):
        assert refused(pages.number_of, "digits", wanted).code == "NOT_FOUND"
    assert refused(pages.number_of, "other", "latest").code == "NOT_FOUND"


def test_every_change_is_on_the_journal(two, descriptions, admin, database) -> None:
    descriptions.describe(admin, "digits", "1.0.0", {"owner": "you"})
    descriptions.tag(admin, "digits", "1.0.0", {"x": "1"})
    descriptions.alias(admin, "digits", "champion", "1.0.0")
    with database.read() as connection:
        actions = list(connection.execute(journal_table.select().order_by(journal_table.c.seq)))
    assert [row.action for row in actions][-3:] == ["describe", "tag", "alias"]
    assert all('"after"' in row.record for row in actions[-3:])


def test_the_journal_names_what_was_changed_and_nothing_else_that_was_asked(two, descriptions, journal, admin) -> None:
    noise = "x" * 100_000
    descriptions.describe(admin, "digits", "1.0.0", {"owner": "ann", "task": None, noise: None})
    descriptions.tag(admin, "digits", "1.0.0", {"team": None, "kind": "a", "other": None, noise: None})
    described, tagged = journal.records(100)[-2:]
    assert described.details == {"changed": ["owner"]}
    assert tagged.details == {"tags": {"team": None, "kind": "a"}}
