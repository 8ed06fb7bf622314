"""What is said of a version as one text, of which search by meaning makes a vector."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete

from salver.protocol.description import Description
from salver.protocol.tables import VersionManifest
from salver.storage.registry_schema import embeddings

__all__ = ["Card", "card_text", "drop_outdated"]

_LONGEST_CARD: Final = 2000
"""Characters of a card; encoders of sentences look at no more."""


class Card(NamedTuple):
    """What is said of a version, as one text."""

    model: str
    version: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def card_text(manifest: VersionManifest, said: Description, tagged: Mapping[str, str]) -> str:
    """A version as one text, what tells most of it first. Pure.

    >>> from salver.testing import make_manifest
    >>> card_text(make_manifest(), Description(task="classification", intended_use="To sort."), {})
    'arithmetic. classification. To sort. inputs x. outputs y'
    """
    signature = manifest.signature
    labels = [label for spec in signature.outputs for label in spec.labels]
    parts = [
        manifest.model,
        said.task,
        said.description,
        said.intended_use,
        said.limitations,
        ", ".join(f"{name} {value}" for name, value in sorted(tagged.items())),
        f"inputs {', '.join(spec.name for spec in signature.inputs)}",
        f"outputs {', '.join(spec.name for spec in signature.outputs)}",
        ", ".join(labels[:20]),
        said.change_note,
    ]
    return ". ".join(part.rstrip(". ") for part in parts if part)[:_LONGEST_CARD]


def drop_outdated(
    connection: Connection, manifest: VersionManifest, description: Description, tags: Mapping[str, str]
) -> None:
    """Remove the vector of a version if it is of another text; in the transaction that changes the text."""
    card = Card(manifest.model, manifest.version, card_text(manifest, description, tags))
    connection.execute(
        delete(embeddings).where(
            embeddings.c.model == card.model,
            embeddings.c.version == card.version,
            embeddings.c.digest != card.digest,
        )
    )
