from __future__ import annotations

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import Tables, TokenRecord
from salver.storage.home import Home
from salver.storage.publication import PublishedTables, publish, read_tables


def test_nothing_is_read_before_the_first_publication(home: Home) -> None:
    assert read_tables(home) is None


def test_a_snapshot_is_published_once_and_never_by_an_older_one(home: Home) -> None:
    new = Tables(revision=5, tokens=(TokenRecord("i", "n", "admin", "t", "h"),))
    assert publish(home, new)
    assert not publish(home, new)
    assert not publish(home, Tables(revision=4))
    assert read_tables(home) == new
    assert publish(home, Tables(revision=6))
    assert read_tables(home) == Tables(revision=6)


def test_a_damaged_snapshot_is_reported_to_readers_and_repaired_by_the_next_publication(home: Home) -> None:
    publish(home, Tables(revision=5))
    home.tables_path.write_bytes(home.tables_path.read_bytes()[:-3])
    with pytest.raises(SalverError, match=r"tables\.json in the data directory is damaged"):
        read_tables(home)
    assert publish(home, Tables(revision=5))
    assert read_tables(home) == Tables(revision=5)


def test_who_follows_hears_of_each_snapshot_once(home: Home) -> None:
    followed = PublishedTables(home)
    assert followed.news() is None
    for revision in (1, 2):
        publish(home, Tables(revision=revision))
        assert followed.news() == Tables(revision=revision)
        assert followed.news() is None


def test_who_follows_hears_of_a_damaged_snapshot_once_and_of_the_whole_one_after_it(home: Home) -> None:
    followed = PublishedTables(home)
    home.tables_path.write_bytes(b"{")
    with pytest.raises(SalverError, match="damaged"):
        followed.news()
    assert followed.news() is None
    publish(home, Tables(revision=1))
    assert followed.news() == Tables(revision=1)
