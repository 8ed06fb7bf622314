"""The report of a comparison: one HTML file that holds its plots and loads nothing, and the record as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from salver.evaluation.comparison import ComparisonRecord
from salver.evaluation.reports.report import render_page, with_pictures, write_files

__all__ = ["render_comparison", "write_comparison"]

_NAMES: Final = ("comparison.html", "comparison.json")


def write_comparison(record: ComparisonRecord, directory: Path) -> tuple[Path, Path]:
    """Write both files into a directory, which is made, and return their paths; each is there whole or not at all."""
    return write_files(directory, render_comparison(record), record, _NAMES)


def render_comparison(record: ComparisonRecord) -> str:
    """The record as one HTML page; raises UNSUPPORTED without jinja2 or matplotlib."""
    checks = [with_pictures(check, index) for index, check in enumerate(record.checks)]
    return render_page("comparison.html.j2", record=record, checks=checks)
