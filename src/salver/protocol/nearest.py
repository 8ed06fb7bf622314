"""Telling what somebody may have meant: names near to one that is not known, and lists of names that stay short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["did_you_mean", "listed"]

_SHOWN = 20


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question about the names that are near; empty where none is.

    >>> did_you_mean("promotion", ("promote", "register")), did_you_mean("x", ("promote",))
    ("did you mean 'promote'?", '')
    """
    import difflib  # noqa: PLC0415 - only where something is wrong

    near = difflib.get_close_matches(name[:200], list(known), 3, 0.7)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """The first `most` names, and how many more there are.

    >>> listed(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
