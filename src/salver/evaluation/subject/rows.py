"""Rows to evaluate on: columns by name, numbers or text, read from csv, parquet or npy.

Nothing in a file is executed, and no value is changed on the way: an
empty cell is NaN in a column of numbers and None in one of text, and text that looks like neither stays text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.nearest import did_you_mean, listed
from salver.storage.tabular import load_npy, load_parquet, require_table

__all__ = ["Array", "Rows", "read_rows"]

Array = np.ndarray[Any, Any]

_MOST_BYTES: Final = 4 * 2**30


@dataclass(frozen=True)
class Rows:
    """Columns of one length. Numbers are numeric arrays, times `datetime64`, text object arrays of str or None."""

    columns: Mapping[str, Array]
    digest: str = ""
    """SHA-256 of the file they come from; empty for rows that were made."""

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)

    def __repr__(self) -> str:
        return f"<Rows {len(self)} of {len(self.columns)} columns>"

    def column(self, name: str) -> Array:
        """One column; raises INVALID_SETTING naming those that exist, and those with nearly that name."""
        if name not in self.columns:
            raise SalverError("INVALID_SETTING", f"the data has no column {name[:80]!r}", self.known(name))
        return self.columns[name]

    def known(self, name: str) -> str:
        """Which columns there are, for one who looked for another; first those with nearly that name."""
        return f"{did_you_mean(name, self.columns)} its columns are {listed(list(self.columns))}".strip()

    def numbers(self, name: str) -> Array:
        """One column of numbers, as float64; raises INVALID_SETTING for text."""
        column = self.column(name)
        if column.dtype.kind not in "biuf":
            raise SalverError(
                "INVALID_SETTING", f"column {name[:80]!r} holds no numbers", "name a column of numbers, or convert it"
            )
        return column.astype(np.float64)

    def times(self, name: str) -> Array:
        """One column of times, comparable: numbers and dates as they are, text as ISO 8601 in UTC.

        Raises INVALID_SETTING for text that is no such time, and for missing ones.
        """
        column = self.column(name)
        if column.dtype.kind == "O":
            pd = _pandas()
            try:
                column = pd.to_datetime(pd.Series(column), format="ISO8601", utc=True).to_numpy("datetime64[ns]")
            except (ValueError, TypeError) as error:
                raise _no_times(name, str(error)[:120]) from None
        missing = np.isnat(column) if column.dtype.kind == "M" else np.isnan(column.astype(np.float64))
        if missing.any():
            raise _no_times(name, f"{int(missing.sum())} are missing")
        return column

    def is_numeric(self, name: str) -> bool:
        """Whether a column holds numbers; truth values are categories."""
        return self.column(name).dtype.kind in "iuf"

    def take(self, indices: Array) -> Rows:
        """These rows, in this order."""
        return Rows({name: column[indices] for name, column in self.columns.items()}, self.digest)

    def replaced(self, **columns: Array) -> Rows:
        """The same rows with other values in some columns; what was made is no longer what was read."""
        return Rows({**self.columns, **columns})


def read_rows(path: Path) -> Rows:
    """The rows of a csv (UTF-8, with a header line), parquet or npy file; columns of an npy file are "0", "1", ...

    Raises INVALID_ARTIFACT for what is no such table, UNSUPPORTED without the extra `evaluation`.
    """
    require_table(path, repr(path.name))
    if path.stat().st_size > _MOST_BYTES:
        raise SalverError(
            "INVALID_ARTIFACT", f"{path.name!r} is larger than {_MOST_BYTES} bytes", "evaluate on a sample of it"
        )
    try:
        columns = _read_npy(path) if path.suffix == ".npy" else _read_frame(path)
        digest = _sha256(path)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise SalverError(
            "INVALID_ARTIFACT", f"{path.name!r} is no table: {str(error)[:300]}", "each row must have as many cells"
        ) from None
    rows = Rows(columns, digest)
    if not len(rows):
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} has no rows", "give a file with some")
    return rows


def _pandas() -> Any:
    try:
        import pandas  # noqa: ICN001, PLC0415 - an extra, and heavy
    except ImportError:
        raise SalverError("UNSUPPORTED", "evaluations need pandas", "pip install 'salver[evaluation]'") from None
    return pandas


def _no_times(name: str, why: str) -> SalverError:
    return SalverError(
        "INVALID_SETTING", f"column {name[:80]!r} holds no times: {why}", "use numbers or ISO 8601, such as 2026-03-01"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_npy(path: Path) -> dict[str, Array]:
    loaded = load_npy(path)
    if loaded.dtype.names:
        return {name: _plain(loaded[name]) for name in loaded.dtype.names}
    if loaded.ndim not in (1, 2):
        raise ValueError(f"it has {loaded.ndim} dimensions")
    table = loaded.reshape(len(loaded), -1)
    return {str(index): _plain(table[:, index]) for index in range(table.shape[1])}


def _read_frame(path: Path) -> dict[str, Array]:
    pd = _pandas()
    if path.suffix == ".parquet":
        frame = load_parquet(path).to_pandas()
    else:
        # "NA" or "None" may be the name of something; only what stands for no number in every language is none.
        frame = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"], encoding="utf-8-sig")
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise ValueError("two columns have one name")
    return {name: _plain(frame[column].to_numpy()) for name, column in zip(names, frame.columns, strict=True)}


def _plain(column: Array) -> Array:
    """Numbers and times as they are; everything else as text, with None for what is missing."""
    if column.dtype.kind in "biufM":
        return column
    text = np.empty(len(column), dtype=object)
    text[:] = [_text(value) for value in column]
    return text


def _text(value: object) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
