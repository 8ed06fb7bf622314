from __future__ import annotations

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.storage.tabular import read_table


@pytest.fixture
def csv(tmp_path):
    def write(content: bytes):
        (tmp_path / "t.csv").write_bytes(content)
        return tmp_path / "t.csv"

    return write


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"1,2\n3,4\n", [[1, 2], [3, 4]]),
        (b"a,b\n1,2\n", [[1, 2]]),
        (b"\xef\xbb\xbf1,2\n3,4\n", [[1, 2], [3, 4]]),  # a byte order mark makes no header
        (b"1, ,3\n4,5,6\n", [[1, np.nan, 3], [4, 5, 6]]),  # nor does an empty cell
        (b"1\n2\n", [[1], [2]]),
        (b'"1","2.5"\r\n\r\n3,4\r\n', [[1, 2.5], [3, 4]]),
        (b"9007199254740993\n", [[9007199254740993]]),  # no double holds it
    ],
)
def test_csv_is_read_as_it_is_written(csv, content, rows) -> None:
    table = read_table(csv(content))
    np.testing.assert_array_equal(table, np.array(rows))
    assert table.dtype.kind == np.array(rows).dtype.kind


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b"1,2\n3\n", b"1,2\nx,y\n", b"\xff\xfe1", b"1;2\n3;4\n", b'"' + b"x" * 200_000 + b'"\n']
)
def test_csv_that_holds_no_table_of_numbers_is_refused_by_name(csv, content) -> None:
    with pytest.raises(SalverError, match=r"'t\.csv' is no table of numbers") as refused:
        read_table(csv(content))
    assert refused.value.code == "INVALID_ARTIFACT"


def test_npy_holds_numbers_and_never_objects(tmp_path) -> None:
    np.save(tmp_path / "flat.npy", np.arange(3))
    assert read_table(tmp_path / "flat.npy").shape == (3, 1)
    np.save(tmp_path / "deep.npy", np.zeros((2, 3, 4), np.float16))
    assert read_table(tmp_path / "deep.npy").shape == (2, 3, 4)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "scalar.npy", np.array(1))
    np.savez(tmp_path / "archive.npz", a=np.zeros(3))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    (tmp_path / "short.npy").write_bytes((tmp_path / "flat.npy").read_bytes()[:-4])
    for name in ("objects", "text", "scalar", "archive", "short"):
        with pytest.raises(SalverError, match=f"'{name}.npy' is no table of numbers"):
            read_table(tmp_path / f"{name}.npy")


def test_parquet_holds_numbers_in_every_column(tmp_path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.table({"a": [1, 2], "b": [0.5, None]}), tmp_path / "good.parquet")
    np.testing.assert_array_equal(read_table(tmp_path / "good.parquet"), [[1, 0.5], [2, np.nan]])
    write_table(pa.table({"a": ["x", "y"]}), tmp_path / "text.parquet")
    write_table(pa.table({"a": [[1], [2]]}), tmp_path / "lists.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("text", "lists", "broken"):
        with pytest.raises(SalverError, match=f"'{name}.parquet' is no table of numbers"):
            read_table(tmp_path / f"{name}.parquet")


def test_what_is_no_table_names_what_is(tmp_path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(SalverError, match=r"\.csv, \.parquet, \.npy"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(SalverError, match="there is no file"):
        read_table(tmp_path / "none.npy")
