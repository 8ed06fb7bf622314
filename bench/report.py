"""What every benchmark does with its result: print it, and with `--write` put it on its page."""

import argparse
import time
from pathlib import Path

import setting

PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("performance.md", "benchmarks.md")]


def arguments(description, seconds):
    """A parser of what all benchmarks take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", action="store_true", help="write the result into its page of the docs")
    parser.add_argument("--seconds", type=int, default=seconds, help="length of each load")
    return parser


def tell(name, lines, *, write):
    """Print a result; write it between the marks of that name, with when and where it was measured."""
    text = "\n".join([f"Measured on {time.strftime('%Y-%m-%d')}: {setting.machine()}.", "", *lines]).rstrip()
    print(text, end="\n\n", flush=True)
    if write:
        begin, end = (f"<!-- {name}: {edge} -->" for edge in ("begin", "end"))
        page = next(page for page in PAGES if begin in page.read_text())
        before, _, rest = page.read_text().partition(begin)
        page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")
