"""`python -m salver.runtime.leashed PARENT COMMAND...`: become a command that dies with the process that started it."""

from __future__ import annotations

import os
import sys

from salver.runtime.environment import die_with_parent

__all__ = ["NOT_STARTED", "main"]

NOT_STARTED = 127
"""The exit code for a command that is not there or cannot be run, as a shell has it."""


def main() -> None:
    """Take the command's place: what was asked of the kernel holds for it as well."""
    die_with_parent(int(sys.argv[1]))
    command = sys.argv[2:]
    try:
        os.execvp(command[0], command)  # noqa: S606 - an operator set it up, and no shell reads it
    except OSError as error:
        sys.stderr.write(f"{command[0]!r} does not start: {error.strerror}\n")
        raise SystemExit(NOT_STARTED) from None


if __name__ == "__main__":
    main()
