"""Drawing plots as SVG text. The one module that imports matplotlib; the same data gives the same bytes."""

from __future__ import annotations

import io
from typing import Any, Final

from salver.evaluation.reports.results import Mark, Plot, Series
from salver.protocol.errors import SalverError

__all__ = ["draw"]

_SIZE: Final = (6.4, 3.6)
_LONGEST_NAME: Final = 44


def draw(plot: Plot, salt: str) -> str:
    """The plot as an `<svg>` element; ids in it begin with `salt`, so that several stand in one page.

    Raises UNSUPPORTED without matplotlib.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and heavy
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise SalverError("UNSUPPORTED", "reports need matplotlib", "pip install 'salver[evaluation]'") from None
    # Text as text: readers can search it, and the page is a tenth of the size.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9.0}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        _fill(figure.add_subplot(), plot)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": plot.title})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _fill(axes: Any, plot: Plot) -> None:
    for series in plot.series:
        _add(axes, series)
    if plot.diagonal:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    if plot.at_x is not None:
        axes.axvline(plot.at_x, color="0.4", linewidth=1, linestyle=":")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if len(plot.series) > 1:
        axes.legend(frameon=False)


def _add(axes: Any, series: Series) -> None:
    if series.mark is Mark.BARS:
        axes.barh(series.y, series.x, height=0.7, color="#4a7fb5")
        axes.set_yticks(series.y, [_shortened(name) for name in series.names])
    elif series.mark is Mark.POINTS:
        below = [y - low for y, low in zip(series.y, series.low, strict=False)]
        above = [high - y for y, high in zip(series.y, series.high, strict=False)]
        bars = [below, above] if below and above else None
        axes.errorbar(series.x, series.y, yerr=bars, fmt="o", markersize=4, linewidth=1, label=series.name)
        if series.names:
            axes.set_xticks(series.x, [_shortened(name) for name in series.names])
    else:
        axes.plot(series.x, series.y, linewidth=1.5, label=series.name)


def _shortened(name: str) -> str:
    # matplotlib takes what stands between two dollar signs for a formula.
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= _LONGEST_NAME else plain[: _LONGEST_NAME - 1] + "…"
