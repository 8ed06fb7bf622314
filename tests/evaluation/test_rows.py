"""Reading rows: every kind of column as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from salver.evaluation.subject.rows import Rows, read_rows
from salver.protocol.errors import SalverError

CSV = "id,amount,country,flag,day\n1,2.5,NA,True,2026-01-02\n2,,None,False,2026-01-03\n3,4,,True,2026-01-04\n"


def test_a_csv_keeps_numbers_text_and_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    rows = read_rows(path)
    assert (len(rows), rows.digest) == (3, hashlib.sha256(CSV.encode()).hexdigest())
    assert rows.column("id").dtype == np.int64
    np.testing.assert_array_equal(rows.numbers("amount"), [2.5, np.nan, 4.0])
    # Namibia's code is no missing value, nor is a person called None.
    assert rows.column("country").tolist() == ["NA", "None", None]
    assert rows.column("flag").dtype == bool
    assert rows.times("day").tolist() == sorted(rows.times("day").tolist())


def test_parquet_and_csv_give_the_same_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": [1, 2], "b": ["x", None], "c": [0.5, 1.5], "t": pd.to_datetime(["2026-01-01", "2026-02-01"])}
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    one, other = read_rows(tmp_path / "rows.parquet"), read_rows(tmp_path / "rows.csv")
    for name in ("a", "b", "c"):
        assert one.column(name).tolist() == other.column(name).tolist()
        assert one.column(name).dtype == other.column(name).dtype
    np.testing.assert_array_equal(one.times("t"), other.times("t"))


def test_columns_of_npy_are_numbered_or_named(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.arange(6.0).reshape(3, 2))
    assert list(read_rows(tmp_path / "table.npy").columns) == ["0", "1"]
    np.save(tmp_path / "named.npy", np.array([(1, b"x")], dtype=[("n", "<i4"), ("s", "S2")]))
    rows = read_rows(tmp_path / "named.npy")
    assert (rows.column("n").tolist(), rows.column("s").tolist()) == ([1], ["x"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "is no table"),
        ("rows.csv", b"a,b\n", "has no rows"),
        ("rows.csv", b"a,b\n1,2\n1,2,3\n", "is no table"),
        ("rows.parquet", b"PAR1 no", "is no table"),
        ("rows.npy", b"\x93NUMPY", "is no table"),
        ("rows.json", b"[]", "use one of .csv, .parquet, .npy"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SalverError) as refused:
        read_rows(tmp_path / name)
    assert refused.value.code == "INVALID_ARTIFACT"
    assert message in str(refused.value)


def test_a_pickle_in_an_npy_file_is_not_unpickled(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    np.save(tmp_path / "rows.npy", np.array([Canary()], dtype=object), allow_pickle=True)
    with pytest.raises(SalverError, match="is no table"):
        read_rows(tmp_path / "rows.npy")
    assert not (tmp_path / "canary").exists()


def test_an_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(SalverError, match="no column 'b'; its columns are a"):
        Rows({"a": np.zeros(1)}).column("b")


def test_an_unknown_column_is_answered_with_the_nearest_and_the_first_twenty() -> None:
    rows = Rows({name: np.zeros(1) for name in ["worst_area", *(f"c{number}" for number in range(22))]})
    with pytest.raises(SalverError) as raised:
        rows.column("worst_areas")
    assert raised.value.message == "the data has no column 'worst_areas'"
    assert raised.value.remedy.startswith("did you mean 'worst_area'? its columns are worst_area, c0, c1, ")
    assert raised.value.remedy.endswith(", c18 and 3 more")


def test_text_that_is_no_time_is_refused() -> None:
    with pytest.raises(SalverError, match="column 'day' holds no times"):
        Rows({"day": np.array(["yesterday"], dtype=object)}).times("day")
    with pytest.raises(SalverError, match="1 are missing"):
        Rows({"day": np.array([1.0, np.nan])}).times("day")
