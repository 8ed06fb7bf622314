"""`salver simulate`: what every batching policy would do under a load, before it is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.tables import table
from salver.protocol.arrivals import Arrivals
from salver.protocol.errors import SalverError
from salver.protocol.tables import BatchPolicy, DeploymentSpec

if TYPE_CHECKING:
    from salver.runtime.status import EndpointStatus
    from salver.scaling.simulation import Arrival, SimulatedOutcome

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("simulate", epilog="Example: salver simulate digits --rate 500 --slo 0.05")(simulate)


def simulate(  # noqa: PLR0913, PLR0917 - one argument for each option
    context: typer.Context,
    endpoint: str = typer.Argument(help="The endpoint whose settings and measured service curve are taken."),
    rate: float | None = typer.Option(None, help="Requests a second."),
    arrivals: Arrivals = typer.Option(Arrivals.POISSON, help="With --rate: at random moments, or evenly."),
    recorded: Path | None = typer.Option(
        None, help="Instead of --rate: file with a line for each request, its second and, after a comma, its rows."
    ),
    rows: int = typer.Option(1, help="Rows of each request, with --rate."),
    duration: float = typer.Option(30.0, help="Simulated seconds, with --rate; at most 3600."),
    policy: list[BatchPolicy] | None = typer.Option(None, help="Policy to try; repeat. All by default."),
    curve: list[str] | None = typer.Option(
        None, metavar="ROWS=SECONDS", help="A point of the service curve; repeat. By default what was measured."
    ),
    max_batch: int | None = typer.Option(None, help="Rows that run together at most; by default as deployed."),
    max_wait: float | None = typer.Option(None, help="For policies that wait; as deployed, else 0.01."),
    min_batch: int | None = typer.Option(None, help="For policy hybrid; as deployed, else 8."),
    slo: float | None = typer.Option(None, help="Objective in seconds; as deployed. Policy deferred needs one."),
    replicas: int | None = typer.Option(None, help="Copies that compute side by side; as deployed."),
    seed: int = typer.Option(0, help="Start of the random arrival times."),
) -> None:
    """Show what each policy would do under a load. Latency, batches and refusals; nothing is sent or changed."""
    from salver.scaling import simulation

    here: Context = context.obj
    spec, status = _deployed(here, endpoint)
    points = _points(curve, status)
    given = {"max_batch": max_batch, "slo_s": slo, "replicas": replicas}
    spec = _with(spec, **{name: value for name, value in given.items() if value is not None})
    load = _recorded(recorded) if recorded else _generated(rate, arrivals, rows, duration, seed)
    tried = [
        _under(spec, each, max_wait, min_batch)
        for each in policy or list(BatchPolicy)
        if each is not BatchPolicy.DEFERRED or spec.slo_s or policy
    ]
    outcomes = [simulation.simulate(each, points, load) for each in tried]
    names = [_named(each, spec.policy) for each in tried]
    here.say({"points": points, "requests": len(load), "outcomes": outcomes}, _shown(names, outcomes))


def _deployed(here: Context, endpoint: str) -> tuple[DeploymentSpec, EndpointStatus | None]:
    """The settings of an endpoint, its replicas those of all server processes, and what it does now."""
    from salver.control.action import Nothing
    from salver.control.actions.status import STATUS

    with here.administration() as admin:
        state = admin.do(STATUS, Nothing())
    spec = next((spec for spec in state.deployments if spec.endpoint == endpoint), None)
    if spec is None:
        known = ", ".join(spec.endpoint for spec in state.deployments) or "none"
        raise SalverError("NOT_FOUND", f"there is no endpoint {endpoint[:140]!r}", f"there are {known}")
    spec = _with(spec, replicas=spec.replicas * max(1, len(state.processes)))
    return spec, next((each for each in state.endpoints if each.endpoint == endpoint), None)


def _points(given: list[str] | None, status: EndpointStatus | None) -> dict[int, float]:
    if given:
        points: dict[int, float] = {}
        for text in given:
            size, _, seconds = text.partition("=")
            try:
                points[int(size)] = float(seconds)
            except ValueError:
                raise SalverError(
                    "INVALID_PARAMETER", f"--curve is {text[:80]!r}", "write it as ROWS=SECONDS, such as 8=0.012"
                ) from None
        return points
    measured = {int(size): seconds for size, seconds in status.curve.items()} if status else {}
    if not measured and status is None:
        raise SalverError(
            "NOT_READY", "nothing was measured yet: no running server serves this endpoint", "start it, or pass --curve"
        )
    if not measured:
        raise SalverError(
            "NOT_READY",
            f"nothing was measured yet: nobody has asked {status.endpoint if status else ''!r}",
            "send it requests, declare warm_up = true, or pass --curve",
        )
    return measured


def _with(spec: DeploymentSpec, **changes: object) -> DeploymentSpec:
    import msgspec

    return msgspec.structs.replace(spec, **changes)


def _under(spec: DeploymentSpec, policy: BatchPolicy, max_wait: float | None, min_batch: int | None) -> DeploymentSpec:
    """The deployment under another policy, with what that policy needs and nothing that it refuses."""
    from salver.registry.settings import check_settings

    waits = policy in (BatchPolicy.TIMEOUT, BatchPolicy.HYBRID, BatchPolicy.PREDICTIVE)
    wait_s = (
        max_wait if max_wait is not None else spec.max_wait_s or (0.0 if policy is BatchPolicy.PREDICTIVE else 0.01)
    )
    least = min_batch if min_batch is not None else max(spec.min_batch, 8)
    changes = {
        "policy": policy,
        "max_wait_s": wait_s if waits else 0.0,
        "min_batch": min(least, spec.max_batch) if policy is BatchPolicy.HYBRID else 1,
    }
    return check_settings(_with(spec, **changes))


def _generated(rate: float | None, arrivals: Arrivals, rows: int, duration_s: float, seed: int) -> list[Arrival]:
    import itertools

    import numpy as np

    from salver.loadgen.arrivals import arrival_times
    from salver.scaling.simulation import MOST_ARRIVALS, Arrival

    if rate is None:
        raise SalverError("INVALID_PARAMETER", "no load is given", "give --rate or --recorded")
    if not 0 < rate <= 100_000:
        raise SalverError("INVALID_PARAMETER", f"--rate is {rate}", "give requests a second, at most 100000")
    if not 0 < duration_s <= 3600 or rows < 1:
        raise SalverError(
            "INVALID_PARAMETER", f"--duration is {duration_s}, --rows {rows}", "use 0-3600 s, 1 row or more"
        )
    if rate * duration_s > MOST_ARRIVALS:
        raise SalverError(
            "INVALID_PARAMETER",
            f"--rate {rate:g} for --duration {duration_s:g} is too much",
            f"use at most {MOST_ARRIVALS} requests in all",
        )
    times = arrival_times(arrivals, rate, 0.0, np.random.default_rng(seed))
    within = itertools.takewhile(lambda at_s: at_s <= duration_s, times)
    return [Arrival(at_s, rows) for at_s in within][:MOST_ARRIVALS]


def _recorded(file: Path) -> list[Arrival]:
    from salver.scaling.simulation import Arrival

    try:
        lines = read_file(file).decode().splitlines()
    except UnicodeDecodeError as error:
        raise SalverError("INVALID_ARTIFACT", f"{str(file)!r} is no text: {error}", "write it in UTF-8") from None
    load = []
    for number, line in enumerate(lines, start=1):
        at, _, rows = line.partition(",")
        try:
            load.append(Arrival(float(at), int(rows or 1)))
        except ValueError:
            raise SalverError(
                "INVALID_ARTIFACT", f"{file.name}, line {number}: {line[:80]!r}", "write SECONDS or SECONDS,ROWS"
            ) from None
    return sorted(load)


def _named(spec: DeploymentSpec, deployed: BatchPolicy) -> str:
    """A policy, what it waits for here, and a mark if it is the one deployed."""
    waits = [f"{spec.min_batch} rows"] if spec.min_batch > 1 else []
    waits += [f"{spec.max_wait_s:g} s"] if spec.max_wait_s else []
    return " ".join(filter(None, [str(spec.policy), " or ".join(waits), "*" if spec.policy == deployed else ""]))


def _shown(names: list[str], outcomes: list[SimulatedOutcome]) -> str:
    head = ["policy", "answered", "refused", "expired", "mean", "p50", "p99", "rows a batch", "busy", "in time/s"]
    return table(
        head,
        [
            [
                name,
                str(each.answered),
                str(each.refused),
                str(each.expired),
                *(_milliseconds(seconds) for seconds in (each.mean_s, each.p50_s, each.p99_s)),
                f"{each.mean_batch_rows:.1f}" if each.mean_batch_rows else "-",
                f"{each.busy_ratio:.0%}",
                f"{each.goodput_per_s:,.0f}",
            ]
            for name, each in zip(names, outcomes, strict=True)
        ],
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"
