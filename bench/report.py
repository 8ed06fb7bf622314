"""What every benchmark does with its result: print it, and with `--write` put it into docs/performance.md."""

import argparse
import time
from pathlib import Path

import setting

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def arguments(description, seconds):
    """A parser of what all benchmarks take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", action="store_true", help="write the result into docs/performance.md")
    parser.add_argument("--seconds", type=int, default=seconds, help="length of each load")
    return parser


def tell(name, lines, *, write):
    """Print a result; write it between the marks of that name, with when and where it was measured."""
    text = "\n".join([f"Measured on {time.strftime('%Y-%m-%d')}: {setting.machine()}.", "", *lines]).rstrip()
    print(text, end="\n\n", flush=True)
    if write:
        page = PAGE.read_text()
        begin, end = (f"<!-- {name}: {edge} -->" for edge in ("begin", "end"))
        before, _, rest = page.partition(begin)
        behind = rest.partition(end)[2]
        if not behind:
            raise SystemExit(f"{PAGE.name} has no place for {name}")
        PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{behind}")
