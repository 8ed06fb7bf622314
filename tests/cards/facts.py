"""Finding one fact in a card or a sheet."""

from __future__ import annotations

from salver.cards.document import Document, Fact

__all__ = ["fact"]


def fact(document: Document, name: str) -> Fact:
    """The first fact of this name; raises StopIteration."""
    return next(each for section in document.sections for each in section.facts if each.name == name)
