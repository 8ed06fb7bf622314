"""`salver deploy` and `salver undeploy`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from salver.cli.context import Context, Exit
from salver.protocol.names import check_name, split_reference
from salver.protocol.tables import (
    BatchPolicy,
    DeploymentSpec,
    Load,
    Nonfinite,
    Placement,
    QueuePolicy,
    RuntimeOptions,
    Validate,
)

if TYPE_CHECKING:
    from salver.control.administration import Administration

__all__ = ["add_to"]

_Model = Annotated[
    str, typer.Argument(metavar="NAME[@VERSION]", help="A registered model; without a version, its highest release.")
]
_Endpoint = Annotated[str | None, typer.Option(help="The name clients call; by default the model's.")]
_Replicas = Annotated[int | None, typer.Option(help="Copies that compute side by side, 1-64 (1).")]
_Placement = Annotated[
    Placement | None,
    typer.Option(help="Where it computes: on the event loop, in a thread, in a worker process; auto measures (auto)."),
]
_MaxBatch = Annotated[int | None, typer.Option(help="Rows that run together, and rows of one request, at most (256).")]
_Policy = Annotated[
    BatchPolicy | None, typer.Option(help="When a free replica takes a batch that could still grow (eager).")
]
_MaxWait = Annotated[
    float | None,
    typer.Option("--max-wait", help="Seconds to wait for a fuller batch, with --policy timeout, hybrid or predictive."),
]
_MinBatch = Annotated[int | None, typer.Option(help="Rows that --policy hybrid waits for (1).")]
_Slo = Annotated[
    float | None,
    typer.Option("--slo", help="Seconds within which requests should be answered: steers batches; 0 for none (0)."),
]
_MaxQueue = Annotated[int | None, typer.Option(help="Requests that may wait; the next is refused (1024).")]
_MaxAge = Annotated[
    float | None,
    typer.Option("--max-age", help="Refuse newcomers while the oldest has waited so many seconds; 0 never (0)."),
]
_Priority = Annotated[
    list[str] | None,
    typer.Option(
        "--priority",
        metavar="SETTINGS",
        help="One for each priority level, most urgent first, such as max_queue=100,deadline_s=0.5; "
        '"default" for a level like the deployment; "none" alone for a single level.',
    ),
]
_MaxStreams = Annotated[
    int | None, typer.Option(help="Streams open at one time on one replica; the next is refused (64).")
]
_MaxSessions = Annotated[
    int | None, typer.Option(help="Sessions open at one time, of a model that keeps state (1024).")
]
_SessionIdle = Annotated[
    float | None, typer.Option("--session-idle", help="Seconds after which an idle session is ended (60).")
]
_CacheBytes = Annotated[int | None, typer.Option(help="Bytes of answers kept for identical requests; 0 for none (0).")]
_CacheTtl = Annotated[float | None, typer.Option("--cache-ttl", help="Seconds for which a kept answer is given (300).")]
_MaxCost = Annotated[
    int | None, typer.Option(help="Cost that runs together at most, in the model's own unit; 0 for no bound (0).")
]
_Deadline = Annotated[
    float | None, typer.Option("--deadline", help="Seconds a request may take, unless it asks for fewer (30).")
]
_Hang = Annotated[
    float | None,
    typer.Option(
        "--hang", help="Seconds after which a batch counts as hung; 0: three times the longest seen, at least 5 (0)."
    ),
]
_Load = Annotated[
    Load | None, typer.Option(help="Load it at once, or when it is asked and others leave it the memory (eager).")
]
_WarmFromTraffic = Annotated[
    bool | None,
    typer.Option(
        "--warm-from-traffic/--no-warm-from-traffic",
        help="Whether a new version is tried on some of the last inputs before it serves (it is).",
    ),
]
_LoadTimeout = Annotated[float | None, typer.Option("--load-timeout", help="Seconds that loading may take (120).")]
_Validate = Annotated[
    Validate | None,
    typer.Option(help="Values outside the profile: warn in the answer, refuse (strict), or do not look (warn)."),
]
_Nonfinite = Annotated[
    Nonfinite | None,
    typer.Option(help="NaN and infinity in JSON answers: fail the request, null, or pass them on (error)."),
]
_Required = Annotated[
    bool | None, typer.Option("--required/--optional", help="Whether the server is ready only with it (required).")
]
_Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="What TensorFlow Serving's clients may call the version; repeat for several labels, "
        '"none" alone for none (none).',
    ),
]
_WorkerMemory = Annotated[
    int | None,
    typer.Option("--worker-memory", help="Bytes of private memory one worker process may take (4294967296)."),
]
_Threads = Annotated[int | None, typer.Option(help="Threads inside one operator, 1-256 (1).")]
_Provider = Annotated[
    list[str] | None,
    typer.Option("--provider", help="ONNX execution provider; repeat, best first (CPUExecutionProvider)."),
]
_Optimization = Annotated[
    str | None, typer.Option(help="ONNX graph optimisation: disabled, basic, extended or all (all).")
]
_Pin = Annotated[list[int] | None, typer.Option(help="Number of a processor to compute on; repeat for several (any).")]
_Wait = Annotated[bool, typer.Option("--wait", help="Return when a running server serves it, or has failed to.")]
_WaitTimeout = Annotated[float, typer.Option(help="Seconds --wait waits at most.")]
_SETTINGS: Final = [
    name for name in DeploymentSpec.__struct_fields__ if name not in ("endpoint", "model", "version", "runtime")
]
"""Options that bear their names set them."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("deploy", epilog="Example: salver deploy digits@1.0.0 --replicas 2 --wait")(deploy)
    app.command("undeploy", epilog="Example: salver undeploy digits")(undeploy)


def deploy(  # noqa: PLR0913, PLR0917 - one argument for each option
    context: typer.Context,
    model: _Model,
    endpoint: _Endpoint = None,
    replicas: _Replicas = None,
    placement: _Placement = None,
    max_batch: _MaxBatch = None,
    policy: _Policy = None,
    max_wait_s: _MaxWait = None,
    min_batch: _MinBatch = None,
    slo_s: _Slo = None,
    max_queue: _MaxQueue = None,
    max_age_s: _MaxAge = None,
    priorities: _Priority = None,
    max_streams: _MaxStreams = None,
    max_sessions: _MaxSessions = None,
    session_idle_s: _SessionIdle = None,
    cache_bytes: _CacheBytes = None,
    cache_ttl_s: _CacheTtl = None,
    max_cost: _MaxCost = None,
    deadline_s: _Deadline = None,
    hang_s: _Hang = None,
    load: _Load = None,
    warm_from_traffic: _WarmFromTraffic = None,
    load_timeout_s: _LoadTimeout = None,
    validate: _Validate = None,
    nonfinite: _Nonfinite = None,
    required: _Required = None,
    labels: _Label = None,
    worker_memory_bytes: _WorkerMemory = None,
    threads: _Threads = None,
    providers: _Provider = None,
    optimization: _Optimization = None,
    pin: _Pin = None,
    wait: _Wait = False,
    wait_timeout: _WaitTimeout = 120.0,
) -> None:
    """Change what an endpoint serves. A running server follows at once, else the next `salver serve` does.

    Settings not given stay as they are, or for a new endpoint take the values in parentheses.
    """
    options = locals()
    settings, runtime = _given(options, _SETTINGS), _given(options, RuntimeOptions.__struct_fields__)
    if priorities:
        settings["priorities"] = _levels(priorities)
    if labels == ["none"]:
        settings["labels"] = []
    if runtime:
        settings["runtime"] = runtime
    _deploy(context.obj, model, endpoint, settings, wait_timeout if wait else None)


def _given(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Of the options by these names, those that were given."""
    return {name: options[name] for name in names if options.get(name) not in (None, [])}


def _levels(written: list[str]) -> list[dict[str, float]]:
    """The priority levels as they are written on the command line."""
    from salver.protocol.errors import SalverError

    if written == ["none"]:
        return []
    if "none" in written:
        raise SalverError("INVALID_SETTING", "--priority is 'none' beside others", "none stands alone")
    return [_level(text) for text in written]


def _level(text: str) -> dict[str, float]:
    from salver.protocol.errors import SalverError

    level: dict[str, float] = {}
    known = QueuePolicy.__struct_fields__
    for part in () if text == "default" else text.split(","):
        name, is_written, value = (piece.strip() for piece in part.partition("="))
        if is_written and name not in known:
            raise SalverError("INVALID_SETTING", f"--priority knows no {name[:80]!r}", f"use {', '.join(known)}")
        try:
            level[name] = int(value) if name == "max_queue" else float(value)
        except ValueError:
            raise SalverError(
                "INVALID_SETTING", f"--priority is {text!r}", "write it as max_queue=100,deadline_s=0.5"
            ) from None
    return level


def _deploy(
    here: Context, model: str, endpoint: str | None, settings: dict[str, Any], wait_timeout_s: float | None
) -> None:
    from salver.control.actions.deployments import DEPLOY
    from salver.registry.deploy_request import DeployRequest

    name, version = split_reference(model)
    if endpoint is not None:
        check_name(endpoint, "endpoint")
    with here.administration() as admin:
        spec = admin.do(DEPLOY, DeployRequest(name, version, endpoint, settings))
        if wait_timeout_s is None:
            here.say(spec, f"{spec.endpoint} -> {spec.model}@{spec.version}")
        else:
            _wait(here, admin, spec, wait_timeout_s)


def _wait(here: Context, admin: Administration, spec: DeploymentSpec, timeout_s: float) -> None:
    from salver.clock import SYSTEM_CLOCK
    from salver.control.action import Nothing
    from salver.control.actions.status import STATUS
    from salver.control.waiting import wait_until_reached
    from salver.protocol.errors import SalverError
    from salver.runtime.status import LoadState

    if not admin.do(STATUS, Nothing()).serving:
        here.note("no server runs on this home; it will serve this at its next start")
        here.say(spec, f"{spec.endpoint} -> {spec.model}@{spec.version}")
        return
    reached = wait_until_reached(lambda: admin.do(STATUS, Nothing()).endpoints, spec, timeout_s, SYSTEM_CLOCK)
    if reached is None:
        raise SalverError("NOT_READY", f"{spec.endpoint} does not serve after {timeout_s:g} s", "see `salver status`")
    text = f"{spec.endpoint} -> {spec.model}@{spec.version}  {reached.state}  {reached.placement or ''}"
    if reached.state is LoadState.FAILED:
        text += f"\n  {reached.code}: {reached.problem}" + (f"\n  {reached.cause}" if reached.cause else "")
    fastest_s = min(reached.curve.values(), default=0.0)
    if spec.slo_s and fastest_s > spec.slo_s:
        here.note(
            f"even the smallest batch takes {fastest_s:.3g} s: no request meets the objective of {spec.slo_s:g} s"
        )
    here.say({"deployment": spec, "status": reached}, text)
    if reached.state is LoadState.FAILED:
        raise Exit(1)


def undeploy(context: typer.Context, endpoint: str = typer.Argument(help="The endpoint to remove.")) -> None:
    """Remove an endpoint. The model and its versions stay registered."""
    from salver.control.actions.deployments import UNDEPLOY, UndeployRequest

    here: Context = context.obj
    with here.administration() as admin:
        spec = admin.do(UNDEPLOY, UndeployRequest(endpoint))
    here.say(spec, f"{spec.endpoint} no longer serves {spec.model}@{spec.version}")
