"""The command line. Each command is one function in the module of its subject.

`--home` and `--json` may stand before or after the command. Exit codes: 0 done, 1 failed,
2 used wrongly, 3 refused by a rule. With `--json` standard output is one document, and errors
are `{"error": {"code", "message", "remedy"}}` on standard error.
"""

from __future__ import annotations

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from salver.cli.app import run  # the commands import what they need when they run

    return run(arguments)
