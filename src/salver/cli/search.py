"""`salver search` and `salver recommend`: finding versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.cli.tables import table
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.protocol.signature import Signature
    from salver.registry.recommendation import DataShape, Recommendation
    from salver.registry.search import Found, Hit

__all__ = ["add_to"]

_MOST_METRICS = 3


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("search", epilog="Example: salver search fraud --filter 'metrics.auc >= 0.9 and stage = production'")(
        search
    )
    app.command("recommend", epilog="Example: salver recommend --data customers.csv --target churned")(recommend)


def search(
    context: typer.Context,
    words: list[str] = typer.Argument([], help="Words; the last one may be the beginning of one."),
    filter: str = typer.Option("", help="A condition, such as 'metrics.auc >= 0.9 and not tags.team = risk'."),
    semantic: bool = typer.Option(False, "--semantic", help="Look for the meaning; takes a deployed embedding model."),
    limit: int = typer.Option(20, help="Show so many at most."),
    refresh: bool = typer.Option(
        False, "--refresh", help="Before that, have the embedding model read every version it has not read yet."
    ),
) -> None:
    """Find versions by what is said and known of them."""
    from salver.control.actions.search import SEARCH, OfSearch

    here: Context = context.obj
    if refresh:
        _refresh(here)
        if not words and not filter:
            return
    with here.administration() as admin:
        found = admin.do(SEARCH, OfSearch(" ".join(words), filter, semantic or refresh, limit))
    here.say(found, "\n".join(_found(found)))
    for note in found.notes:
        here.note(f"note: {note}")


def _refresh(here: Context) -> None:
    """Go on until every version has a vector."""
    from salver.control.action import Nothing
    from salver.control.actions.search import REFRESH_MEANINGS

    total = 0
    with here.administration() as admin:
        while True:
            done = admin.do(REFRESH_MEANINGS, Nothing())
            total += done.embedded
            if done.waiting == 0 or done.embedded == 0:
                break
            here.note(f"{total} versions read, {done.waiting} to go")
    here.note(f"{done.embedder} has read {total} versions")


def _found(found: Found) -> list[str]:
    if not found.hits:
        return ["nothing was found"]
    scored = found.hits[0].score is not None
    head = ["version", "stage", *(["fits"] if scored else []), "task", "metrics", "says"]
    rows = [_row(hit, scored=scored) for hit in found.hits]
    more = [f"{len(found.hits)} of {found.total} are shown"] if found.total > len(found.hits) else []
    return [table(head, rows), *more]


def _row(hit: Hit, *, scored: bool) -> list[str]:
    fits = [f"{hit.score:.2f}"] if scored and hit.score is not None else []
    return [hit.reference, hit.stage, *fits, hit.task or "-", _metrics(hit.metrics), " ".join(hit.summary.split())[:60]]


def _metrics(metrics: dict[str, float]) -> str:
    shown = [f"{name} {value:.4g}" for name, value in sorted(metrics.items())[:_MOST_METRICS]]
    return ", ".join(shown) or "-"


def recommend(
    context: typer.Context,
    task: str = typer.Option("", help="What it is to do, such as classification."),
    data: Path | None = typer.Option(None, help="Rows that it is to take: csv, parquet or npy."),
    target: str = typer.Option("", help="The column of the data that it is to predict."),
    like: str = typer.Option("", help="NAME or NAME@VERSION, whose clients must be able to go on."),
    signature: Path | None = typer.Option(
        None, help="A JSON file with the inputs and outputs that clients use, as `salver show --json` has them."
    ),
    limit: int = typer.Option(10, help="Show so many at most."),
) -> None:
    """Propose registered models, with reasons. For a task, for a set of data, or for the clients of another version."""
    from salver.control.actions.search import RECOMMEND, OfRecommendation

    here: Context = context.obj
    if target and data is None:
        raise SalverError("INVALID_PARAMETER", "--target is given without --data", "name the file it is a column of")
    shape = _shape(data, target) if data else None
    wanted = _signature(signature) if signature else None
    with here.administration() as admin:
        found = admin.do(RECOMMEND, OfRecommendation(task, shape, like, limit, wanted))
    here.say(found, "\n".join(line for each in found for line in _recommended(each)) or "no registered model fits")


def _shape(path: Path, target: str) -> DataShape:
    """What a file of rows looks like; its rows stay here."""
    from salver.evaluation.subject.shapes import shape_of

    return shape_of(path, target)


def _signature(path: Path) -> Signature:
    import msgspec

    from salver.protocol.signature import Signature

    try:
        return msgspec.json.decode(path.read_bytes(), type=Signature)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SalverError(
            "INVALID_PARAMETER",
            f"{path.name!r} is no signature: {why}",
            'write {"inputs": [...], "outputs": [...]}, as `salver --json show NAME` has it under manifest.signature',
        ) from None


def _recommended(each: Recommendation) -> list[str]:
    lines = [f"{each.model}@{each.version}  fits {each.fit_ratio:.0%}  {_metrics(each.metrics)}"]
    lines += [f"  + {reason}" for reason in each.reasons]
    lines += [f"  ? {caveat}" for caveat in each.caveats]
    return lines
