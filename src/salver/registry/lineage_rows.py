"""What versions were made of, as rows: nodes have a kind and a name, such as data:DIGEST, run:ID or version:NAME@V.

Rows are written in the transaction that writes what states them, a description or a recorded evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from salver.protocol.description import DataReference, Description
from salver.protocol.errors import SalverError
from salver.protocol.names import parse_reference
from salver.protocol.tables import VersionManifest
from salver.storage.registry_schema import lineage

__all__ = [
    "BASED_ON",
    "EVALUATED_ON",
    "JUDGED_ON",
    "TRAINED_ON",
    "base_node",
    "data_nodes",
    "note_judged_on",
    "version_node",
    "write_lineage",
]

TRAINED_ON: Final = "trained-on"
EVALUATED_ON: Final = "evaluated-on"
MADE_BY: Final = "made-by"
FROM_CODE: Final = "from"
FROM_CHANGED_CODE: Final = "from-changed"
"""From a commit with changes that nobody has committed."""
BASED_ON: Final = "based-on"
BUILT_IN: Final = "built-in"
LOCKED_BY: Final = "locked-by"
JUDGED_ON: Final = "judged-on"
"""By an evaluation that was recorded; no description says it, so none takes it back."""
_LONGEST: Final = 1000


def version_node(model: str, version: str) -> str:
    """The node of a version."""
    return f"version:{model}@{version}"


def base_node(base_model: str) -> str:
    """The node of what a description calls its base model.

    >>> base_node("bert@1.0.0"), base_node("bert-large")
    ('version:bert@1.0.0', 'model:bert-large')
    """
    try:
        name, version = parse_reference(base_model)
    except SalverError:
        return f"model:{base_model}"
    return f"model:{name}" if version is None else version_node(name, version)


def data_nodes(data: DataReference | None) -> tuple[str, ...]:
    """The nodes of a set of data, the surest first: its digest, where it is, what it is called.

    >>> data_nodes(DataReference(name="loans", digest="sha256:AB"))
    ('data:ab', 'data:loans')
    """
    if data is None:
        return ()
    digest = data.digest.removeprefix("sha256:").lower()
    return tuple(f"data:{each}" for each in dict.fromkeys((digest, data.uri, data.name)) if each)


def write_lineage(connection: Connection, manifest: VersionManifest, description: Description) -> None:
    """Replace what the description of a version states of where it comes from."""
    connection.execute(
        delete(lineage).where(
            lineage.c.model == manifest.model,
            lineage.c.version == manifest.version,
            lineage.c.relation != JUDGED_ON,
        )
    )
    stated = dict.fromkeys((relation, _stored(node)) for relation, node in _stated(description))
    rows = [
        {"model": manifest.model, "version": manifest.version, "relation": relation, "node": node}
        for relation, node in stated
    ]
    if rows:
        connection.execute(insert(lineage), rows)


def note_judged_on(connection: Connection, model: str, version: str, data_digest: str) -> None:
    """Note that an evaluation of a version on these data was recorded; once is enough."""
    for node in data_nodes(DataReference(digest=data_digest)):
        row = {"model": model, "version": version, "relation": JUDGED_ON, "node": _stored(node)}
        same = [lineage.c[name] == value for name, value in row.items()]
        if connection.execute(select(lineage.c.node).where(*same)).one_or_none() is None:
            connection.execute(insert(lineage).values(row))


def _stored(node: str) -> str:
    return node[:_LONGEST].replace("\0", "\ufffd")  # PostgreSQL has no NUL in text


def _stated(said: Description) -> Iterator[tuple[str, str]]:
    yield from ((TRAINED_ON, node) for node in data_nodes(said.training_data))
    yield from ((EVALUATED_ON, node) for node in data_nodes(said.evaluation_data))
    if said.run_id:
        yield MADE_BY, f"run:{said.run_id}"
    if said.code_commit:
        yield FROM_CHANGED_CODE if said.code_dirty else FROM_CODE, f"commit:{said.code_commit}"
    if said.base_model:
        yield BASED_ON, base_node(said.base_model)
    if said.image_digest:
        yield BUILT_IN, f"image:{said.image_digest}"
    if said.lock_digest:
        yield LOCKED_BY, f"lock:{said.lock_digest}"
