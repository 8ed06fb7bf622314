"""`salver status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.cli.isolated import describe_isolation
from salver.cli.settings import describe_settings
from salver.cli.tables import table

if TYPE_CHECKING:
    from salver.protocol.tables import DeploymentSpec
    from salver.runtime.status import EndpointStatus, ProcessStatus

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("status", epilog="Example: salver status --json")(status)


def status(context: typer.Context) -> None:
    """Show what is deployed and what serves. Also where it computes, how long batches take, and what is wrong."""
    import msgspec

    from salver.control.action import Nothing
    from salver.control.actions.status import STATUS

    here: Context = context.obj
    serving = here.home().read_serving()
    with here.administration() as admin:
        state = admin.do(STATUS, Nothing())
    by_endpoint = {endpoint.endpoint: endpoint for endpoint in state.endpoints}
    rows, problems = [], []
    settings: list[str] = []
    for spec in state.deployments:
        now = by_endpoint.get(spec.endpoint)
        if told := describe_settings(msgspec.to_builtins(spec)):
            settings += [f"{spec.endpoint}: {told}"] if settings else ["", f"{spec.endpoint}: {told}"]
        rows.append(_row(spec, now, max(1, len(state.processes))))
        if now is not None and now.problem:
            problems.append(f"{spec.endpoint}: {now.code}: {now.problem}" + (f"\n  {now.cause}" if now.cause else ""))
    head = ["endpoint", "wanted", "state", "serving", "placement", "replicas", "waiting", "batch time"]
    where = "not serving"
    if serving:
        grpc = f"gRPC at {serving.grpc}, " if serving.grpc else ""
        where = f"serving at {serving.http}, {grpc}control at {serving.control}, pid {serving.pid}"
    notes = [describe_isolation(row) for row in state.isolated]
    each = [_process(row) for row in state.processes] if len(state.processes) > 1 else []
    lines = [where, *each, "", table(head, rows) or "nothing is deployed", *settings, *problems, *notes]
    document = {
        "serving": serving,
        "deployments": state.deployments,
        "endpoints": state.endpoints,
        "processes": state.processes,
        "isolated": state.isolated,
    }
    here.say(document, "\n".join(lines))


def _row(spec: DeploymentSpec, now: EndpointStatus | None, processes: int) -> list[str]:
    """One endpoint: what should be, and what is."""
    wanted = f"{spec.model}@{spec.version}"
    if now is None:
        return [spec.endpoint, wanted, "not running", "-", "-", str(spec.replicas), "-", "-"]
    curve = sorted((int(size), seconds) for size, seconds in now.curve.items())
    ends = dict([curve[0], curve[-1]]) if curve else {}
    return [
        spec.endpoint,
        wanted,
        f"{now.state}" if now.available or now.serving is None else f"{now.state}, unavailable",
        now.serving or "-",
        now.placement or "-",
        f"{now.replicas}/{spec.replicas * processes}",
        str(now.waiting),
        ", ".join(f"{rows}: {seconds * 1e6:.0f} us" for rows, seconds in ends.items()) or "-",
    ]


def _process(row: ProcessStatus) -> str:
    """One server process among several."""
    from salver.runtime.status import LoadState

    if not row.pid:
        return f"server process {row.slot}: {row.state}"
    at_goal = sum(endpoint.state is not LoadState.LOADING for endpoint in row.endpoints)
    return (
        f"server process {row.slot}: {row.state}, pid {row.pid}, {row.connections} connections, "
        f"{at_goal} of {len(row.endpoints)} endpoints settled"
    )
