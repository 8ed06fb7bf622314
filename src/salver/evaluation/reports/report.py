"""The report of an evaluation: one HTML file that holds its plots and loads nothing, and the record as JSON."""

from __future__ import annotations

import datetime as dt
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from salver.evaluation.reports.plots import draw
from salver.evaluation.reports.records import CheckRecord, EvaluationRecord
from salver.evaluation.reports.results import Role
from salver.protocol.errors import SalverError
from salver.protocol.printable import printable
from salver.storage.snapshot import write_atomically

__all__ = ["HTML_NAME", "JSON_NAME", "render_page", "render_report", "with_pictures", "write_files", "write_report"]

HTML_NAME: Final = "evaluation.html"
JSON_NAME: Final = "evaluation.json"
_TITLES: Final = {
    Role.OPTIMISING: "What to have more of",
    Role.SATISFICING: "What is good enough",
    Role.SAFEGUARD: "Safeguards",
}


def write_report(record: EvaluationRecord, directory: Path) -> tuple[Path, Path]:
    """Write both files into a directory, which is made, and return their paths; each is there whole or not at all."""
    return write_files(directory, render_report(record), record, (HTML_NAME, JSON_NAME))


def write_files(directory: Path, html: str, record: msgspec.Struct, names: tuple[str, str]) -> tuple[Path, Path]:
    """A page and a record as files of these names; see `write_report`."""
    paths = directory / names[0], directory / names[1]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(paths[0], html.encode(), 0o644)
        write_atomically(paths[1], msgspec.json.format(msgspec.json.encode(record)), 0o644)
    except OSError as error:
        raise SalverError(
            "INVALID_SETTING", f"cannot write the report into {str(directory)!r}: {error.strerror}", "name another"
        ) from None
    return paths


def render_report(record: EvaluationRecord) -> str:
    """The record as one HTML page; raises UNSUPPORTED without jinja2 or matplotlib."""
    sections = [
        (title, [with_pictures(check, index) for index, check in enumerate(record.checks) if check.role is role])
        for role, title in _TITLES.items()
    ]
    return render_page("report.html.j2", record=record, at=record.at_s, sections=[each for each in sections if each[1]])


def render_page(template: str, **values: object) -> str:
    """A template of this package with these values; raises UNSUPPORTED without jinja2."""
    try:
        import jinja2  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError("UNSUPPORTED", "reports need jinja2", "pip install 'salver[evaluation]'") from None
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"cell": _cell, "moment": _moment}
    return environment.from_string(resources.files(__package__).joinpath(template).read_text("utf-8")).render(values)


def with_pictures(check: CheckRecord, index: int) -> tuple[CheckRecord, list[str]]:
    """A check with its plots as SVG."""
    pictures = [draw(plot, f"c{index}p{number}") for number, plot in enumerate(check.plots)]
    return check, pictures


def _moment(at_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%d %H:%M} UTC"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
