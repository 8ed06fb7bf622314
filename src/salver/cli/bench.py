"""`salver bench`: load on an endpoint, measured so that a stalled server cannot hide."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.trust import advising, trusted
from salver.protocol.arrivals import Arrivals
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.loadgen import LoadPlan, LoadReport
    from salver.protocol.tables import DeploymentSpec, VersionManifest
    from salver.runtime.status import EndpointStatus

__all__ = ["add_to"]

_USUAL_TARGET_S: Final = 0.1
"""The latency that is taken for unacceptable where the endpoint has no objective."""


class _Where(NamedTuple):
    """The server to load, and whether it serves this home."""

    url: str
    is_ours: bool
    token: str | None
    verify: ssl.SSLContext | None


class _Deployed(NamedTuple):
    """What the home says of an endpoint."""

    spec: DeploymentSpec
    manifest: VersionManifest
    """Of the version that is to serve."""
    status: EndpointStatus | None
    processes: int


class _Made(NamedTuple):
    """The request to repeat: read from `input`, or made with `rows` rows."""

    input: Path | None
    rows: int
    seed: int


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("bench", epilog="Example: salver bench digits --rate 2000 --duration 10")(bench)


def bench(  # noqa: PLR0913, PLR0917 - one argument for each option
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint to load."),
    input: Path | None = typer.Option(
        None,
        help="File with a request as JSON; by default rows like the profiled training data, else zeros.",
    ),
    rows: int = typer.Option(1, help="Rows of the request that is made, if no --input is given."),
    rate: float | None = typer.Option(None, help="Requests a second, sent whatever happens (open loop)."),
    arrivals: Arrivals = typer.Option(Arrivals.POISSON, help="With --rate: at random moments, or evenly."),
    connections: int = typer.Option(64, help="Connections; without --rate each waits for its answer (closed loop)."),
    duration: float = typer.Option(10.0, help="Seconds to measure, at most 600."),
    warmup: float = typer.Option(1.0, help="Seconds of load before measuring."),
    seed: int = typer.Option(0, help="Start of the random arrival times and rows."),
    url: str | None = typer.Option(
        None, help="http://HOST:PORT of a server; by default the one that serves this home."
    ),
    token: str | None = typer.Option(None, envvar="SALVER_TOKEN", help="A token, where the server asks for one."),
    ca: Path | None = typer.Option(None, help="File with certificates to trust, in PEM."),
    worth_throughput: float = typer.Option(1.0, help="What a row a second is worth, for the best batch size."),
    worth_latency: float | None = typer.Option(
        None, help="What a second of latency costs; by default so much that the objective eats up all throughput."
    ),
) -> None:
    """Measure rate, latency and the best batch size.

    Latency counts from when a request was meant to leave. The best batch size is that with the largest
    throughput * worth-throughput - latency * worth-latency on the service curve that the server has measured.
    """
    from salver.loadgen import LoadPlan, Mode, render_report

    here: Context = context.obj
    where = _Where(url or here.serving().http or "", url is None, token, trusted(ca))
    deployed = _deployed(here, endpoint) if where.is_ours else None
    headers = [("content-type", "application/json"), *([("authorization", f"Bearer {token}")] if token else [])]
    with advising():
        body = _body(where, endpoint, deployed, _Made(input, rows, seed))
    plan = LoadPlan(
        where.url,
        f"/v2/models/{endpoint}/infer",
        body,
        tuple(headers),
        mode=Mode.CLOSED if rate is None else Mode.OPEN,
        connections=connections,
        rate_per_s=rate or 0.0,
        arrivals=arrivals,
        duration_s=duration,
        warmup_s=warmup,
        within_s=deployed.spec.slo_s if deployed else 0.0,
        seed=seed,
    )
    with advising():
        report = _run(here, plan, where.verify)
    found = _best_batch(deployed, worth_throughput, worth_latency) if deployed else None
    if found is None:
        here.say(report, render_report(report))
    else:
        here.say(msgspec.to_builtins(report) | {"batching": found}, f"{render_report(report)}\n{_described(found)}")
    if not report.ok:
        raise typer.Exit(1)


def _deployed(here: Context, endpoint: str) -> _Deployed | None:
    """What this home says of an endpoint; None where that is not ours to read."""
    from salver.control.action import Nothing
    from salver.control.actions.descriptions import SHOW_VERSION
    from salver.control.actions.models import OfVersion
    from salver.control.actions.status import STATUS

    try:
        with here.administration() as admin:
            state = admin.do(STATUS, Nothing())
            spec = next(spec for spec in state.deployments if spec.endpoint == endpoint)
            status = next((each for each in state.endpoints if each.endpoint == endpoint), None)
            wanted = admin.do(SHOW_VERSION, OfVersion(spec.model, spec.version)).manifest
            return _Deployed(spec, wanted, status, max(1, len(state.processes)))
    except (SalverError, StopIteration):
        return None


def _best_batch(deployed: _Deployed, throughput: float, latency: float | None) -> dict[str, Any] | None:
    """The optimum beside the steered limit; None where the curve is no line."""
    from salver.runtime.curve import Line
    from salver.scaling.optimum import Worth, best_batch, worth_of

    spec, status = deployed.spec, deployed.status
    if status is None or status.line is None:
        return None
    line = Line(*status.line)
    # A cost may be unbounded; twice what was measured is as far as a line can be trusted.
    most = 2 * max(map(int, status.curve)) if status.costed else spec.max_batch
    worth = worth_of(line, spec.slo_s or _USUAL_TARGET_S, most)
    worth = Worth(throughput, worth.latency * throughput if latency is None else latency)
    best = best_batch(line, worth, most)
    return {
        "fixed_s": line.a_s,
        "per_row_s": line.b_s,
        "unit": "cost" if status.costed else "rows",
        "limit": status.batch_limit,
        "steered": bool(spec.slo_s),
        "optimum": best._asdict(),
        "replicas": spec.replicas * deployed.processes,
        "worth": worth._asdict(),
    }


def _described(found: dict[str, Any]) -> str:
    best, worth = found["optimum"], found["worth"]
    each = "row" if found["unit"] == "rows" else "unit of cost"
    kind = "steered limit" if found["steered"] else "limit (no --slo)"
    copy = ", of each replica" if found["replicas"] > 1 else ""
    return (
        f"batches: {found['fixed_s'] * 1e3:.3g} ms + {found['per_row_s'] * 1e3:.3g} ms for each {each}; "
        f"{kind} {found['limit']}; best {best['rows']} "
        f"({best['throughput_per_s']:,.0f} a second{copy}, latency {best['latency_s'] * 1e3:.3g} ms; "
        f"one a second is worth {worth['throughput']:g}, a second of latency {worth['latency']:,.0f})"
    )


def _body(where: _Where, endpoint: str, deployed: _Deployed | None, made: _Made) -> bytes:
    """The request to repeat: from a file, or ordinary values in the shape the endpoint takes."""
    if made.input is not None:
        return read_file(made.input)
    import numpy as np

    from salver.client import Client
    from salver.loadgen import example_request

    with Client(where.url, token=where.token, verify=where.verify or True) as client:
        described = client.metadata(endpoint)
    version = deployed.manifest if deployed and deployed.manifest.version in described.versions else None
    # Each request of a stateful version is a session of its own.
    parameters = {"sequence_start": True, "sequence_end": True} if version and version.keeps_state else {}
    # Where no profile says what is ordinary, zeros will do.
    profile = version.profile if version else None
    return example_request(described.inputs, profile, made.rows, np.random.default_rng(made.seed), parameters)


def _run(here: Context, plan: LoadPlan, verify: ssl.SSLContext | None) -> LoadReport:
    from salver.loadgen import Progress, run_load

    if here.json or not sys.stderr.isatty():
        return run_load(plan, tls=verify)
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.fields[rate]:>10,.0f}/s"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("connecting", total=plan.warmup_s + plan.duration_s, rate=0.0)

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.phase, completed=progress.elapsed_s, rate=progress.rate_per_s)

        return run_load(plan, tls=verify, on_progress=show)
