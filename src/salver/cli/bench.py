"""`salver bench`: load on an endpoint, measured so that a stalled server cannot hide."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salver.cli.context import Context
from salver.loadgen.plan import Arrivals, Mode
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.loadgen import LoadPlan, LoadReport

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("bench", epilog="Example: salver bench digits --rate 2000 --duration 10")(bench)


def bench(
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint to load."),
    input: Path | None = typer.Option(None, help="A request as JSON; by default one row made from the signature."),
    rows: int = typer.Option(1, help="Rows of the request that is made."),
    rate: float | None = typer.Option(None, help="Requests a second, sent whatever happens (open loop)."),
    arrivals: Arrivals = typer.Option(Arrivals.POISSON, help="How the times of an open loop lie."),
    connections: int = typer.Option(64, help="Connections; without --rate each waits for its answer (closed loop)."),
    duration: float = typer.Option(10.0, help="Seconds to measure, at most 600."),
    warmup: float = typer.Option(1.0, help="Seconds of load before."),
    seed: int = typer.Option(0, help="Of the random arrival times."),
    url: str | None = typer.Option(None, help="A server elsewhere; by default the one that serves this home."),
    token: str | None = typer.Option(None, envvar="SALVER_TOKEN", help="Where the server asks for one."),
) -> None:
    """Measure rate and latency; latency counts from when a request was meant to leave."""
    from salver.loadgen import LoadPlan, render_report

    here: Context = context.obj
    where = url or here.serving().http or ""
    headers = [("content-type", "application/json"), *([("authorization", f"Bearer {token}")] if token else [])]
    plan = LoadPlan(
        where,
        f"/v2/models/{endpoint}/infer",
        _body(where, endpoint, token, input, rows),
        tuple(headers),
        mode=Mode.CLOSED if rate is None else Mode.OPEN,
        connections=connections,
        rate_per_s=rate or 0.0,
        arrivals=arrivals,
        duration_s=duration,
        warmup_s=warmup,
        seed=seed,
    )
    report = _run(here, plan)
    here.say(report, render_report(report))


def _body(url: str, endpoint: str, token: str | None, input: Path | None, rows: int) -> bytes:
    """The request to repeat: from a file, or ordinary values in the shape the endpoint takes."""
    if input is not None:
        try:
            return input.read_bytes()
        except OSError as error:
            raise SalverError("INVALID_ARTIFACT", f"cannot read {str(input)!r}: {error.strerror}") from None
    import msgspec

    from salver.client import Client

    with Client(url, token=token) as client:
        specs = client.metadata(endpoint).inputs
    return msgspec.json.encode({"inputs": [_zeros(spec, rows) for spec in specs]})


def _zeros(spec: Any, rows: int) -> dict[str, Any]:
    from math import prod

    from salver.protocol.datatypes import DATATYPES

    json_type = DATATYPES[spec.datatype].json_type
    if json_type is None:
        raise SalverError(
            "WRONG_DATATYPE", f"input {spec.name!r} is {spec.datatype}, which JSON cannot carry", "pass --input"
        )
    shape = [rows if axis == 0 and size == -1 else max(size, 1) for axis, size in enumerate(spec.shape)]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": [json_type()] * prod(shape)}


def _run(here: Context, plan: LoadPlan) -> LoadReport:
    from salver.loadgen import Progress, run_load

    if here.json or not sys.stderr.isatty():
        return run_load(plan)
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.fields[rate]:>10,.0f}/s"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("connecting", total=plan.warmup_s + plan.duration_s, rate=0.0)

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.phase, completed=progress.elapsed_s, rate=progress.rate_per_s)

        return run_load(plan, on_progress=show)
