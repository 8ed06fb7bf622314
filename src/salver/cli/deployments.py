"""`salver deploy` and `salver undeploy`."""

from __future__ import annotations

from typing import Any

import typer

from salver.cli.context import Context, Exit
from salver.protocol.names import check_name, parse_reference
from salver.protocol.tables import DeploymentSpec, Nonfinite, Placement, Validate

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("deploy", epilog="Example: salver deploy digits@1.0.0 --replicas 2 --wait")(deploy)
    app.command("undeploy", epilog="Example: salver undeploy digits")(undeploy)


def deploy(  # noqa: PLR0913, PLR0917 - one argument for each option
    context: typer.Context,
    model: str = typer.Argument(
        metavar="NAME[@VERSION]", help="A registered model; without a version, its highest release."
    ),
    endpoint: str | None = typer.Option(None, help="The name clients call; by default the model's."),
    replicas: int | None = typer.Option(None, help="Copies that compute side by side, 1-64 (1)."),
    placement: Placement | None = typer.Option(
        None,
        help="Where it computes: on the event loop, in a thread, in a worker process; auto measures (auto).",
    ),
    max_batch: int | None = typer.Option(None, help="Rows that run together, and rows of one request, at most (256)."),
    max_wait: float | None = typer.Option(None, help="Seconds to wait for a fuller batch; 0 never waits (0)."),
    max_queue: int | None = typer.Option(None, help="Requests that may wait; the next is refused (1024)."),
    max_cost: int | None = typer.Option(
        None, help="Cost that runs together at most, in the model's own unit; 0 for no bound (0)."
    ),
    deadline: float | None = typer.Option(None, help="Seconds a request may take, unless it asks for fewer (30)."),
    hang: float | None = typer.Option(
        None, help="Seconds after which a batch counts as hung; 0: three times the longest seen, at least 5 (0)."
    ),
    load_timeout: float | None = typer.Option(None, help="Seconds that loading may take (120)."),
    validate: Validate | None = typer.Option(
        None, help="Values outside the profile: warn in the answer, refuse (strict), or do not look (warn)."
    ),
    nonfinite: Nonfinite | None = typer.Option(
        None, help="NaN and infinity in JSON answers: fail the request, null, or pass them on (error)."
    ),
    required: bool | None = typer.Option(
        None, "--required/--optional", help="Whether the server is ready only with it (required)."
    ),
    worker_memory: int | None = typer.Option(
        None, help="Bytes of private memory one worker process may take (4294967296)."
    ),
    threads: int | None = typer.Option(None, help="Threads inside one operator, 1-256 (1)."),
    provider: list[str] | None = typer.Option(
        None, help="ONNX execution provider; repeat, best first (CPUExecutionProvider)."
    ),
    optimization: str | None = typer.Option(
        None, help="ONNX graph optimisation: disabled, basic, extended or all (all)."
    ),
    pin: list[int] | None = typer.Option(None, help="Number of a processor to compute on; repeat for several (any)."),
    wait: bool = typer.Option(False, "--wait", help="Return when a running server serves it, or has failed to."),
    wait_timeout: float = typer.Option(120.0, help="Seconds --wait waits at most."),
) -> None:
    """Change what an endpoint serves. A running server follows at once, else the next `salver serve` does.

    Settings not given stay as they are, or for a new endpoint take the values in parentheses.
    """
    from salver.control.administration import DeployRequest

    here: Context = context.obj
    name, version = parse_reference(model)
    if endpoint is not None:
        check_name(endpoint, "endpoint")
    given: dict[str, Any] = {
        "replicas": replicas,
        "placement": placement,
        "max_batch": max_batch,
        "max_wait_s": max_wait,
        "max_queue": max_queue,
        "max_cost": max_cost,
        "deadline_s": deadline,
        "hang_s": hang,
        "load_timeout_s": load_timeout,
        "validate": validate,
        "nonfinite": nonfinite,
        "required": required,
        "worker_memory_bytes": worker_memory,
    }
    runtime = {"threads": threads, "providers": provider or None, "optimization": optimization, "pin": pin or None}
    settings = {key: value for key, value in given.items() if value is not None}
    if any(value is not None for value in runtime.values()):
        settings["runtime"] = {key: value for key, value in runtime.items() if value is not None}
    with here.administration() as admin:
        spec = admin.deploy(DeployRequest(name, version, endpoint, settings))
        if not wait:
            here.say(spec, f"{spec.endpoint} -> {spec.model}@{spec.version}")
            return
        _wait(here, admin, spec, wait_timeout)


def _wait(here: Context, admin: Any, spec: DeploymentSpec, timeout_s: float) -> None:
    from salver.clock import SYSTEM_CLOCK
    from salver.control.waiting import wait_until_reached
    from salver.protocol.errors import SalverError
    from salver.runtime.status import LoadState

    if not admin.status().serving:
        here.note("no server runs on this home; it will serve this at its next start")
        here.say(spec, f"{spec.endpoint} -> {spec.model}@{spec.version}")
        return
    reached = wait_until_reached(admin, spec, timeout_s, SYSTEM_CLOCK)
    if reached is None:
        raise SalverError("NOT_READY", f"{spec.endpoint} does not serve after {timeout_s:g} s", "see `salver status`")
    text = f"{spec.endpoint} -> {spec.model}@{spec.version}  {reached.state}  {reached.placement or ''}"
    if reached.state is LoadState.FAILED:
        text += f"\n  {reached.code}: {reached.problem}"
    here.say({"deployment": spec, "status": reached}, text)
    if reached.state is LoadState.FAILED:
        raise Exit(1)


def undeploy(context: typer.Context, endpoint: str = typer.Argument(help="The endpoint to remove.")) -> None:
    """Remove an endpoint. The model and its versions stay registered."""
    here: Context = context.obj
    with here.administration() as admin:
        spec = admin.undeploy(endpoint)
    here.say(spec, f"{spec.endpoint} no longer serves {spec.model}@{spec.version}")
