"""`salver check`: does a version start and bear load, alone on a server of its own, as it would in production?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.judging import end_with, judging, keep_evidence, require_within
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version
from salver.protocol.tables import DeploymentSpec, Placement, VersionManifest
from salver.protocol.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from salver.loadgen import LoadReport

__all__ = ["add_to", "serving_alone"]

_ENDPOINT: Final = "candidate"
_FEWEST: Final = 50
"""Answers below which a percentile says nothing."""
_BUSY_RATIO: Final = 0.9
"""Of a processor; a generator that uses more was itself the limit."""
_KEPT_RATE_RATIO: Final = 0.95
_CONNECTIONS: Final = 32


@dataclass(frozen=True)
class _Wanted:
    """What is asked of the candidate; None where nothing is."""

    rate_per_s: float
    duration_s: float
    cold_start_s: float | None
    p99_s: float | None
    memory_bytes: int | None


class _Measured(msgspec.Struct, frozen=True):
    """What a server with nothing but the candidate did."""

    cold_start_s: float
    memory_bytes: int
    report: LoadReport | None = None
    problem: str = ""
    """Why it never served."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("check", epilog="Example: salver check digits@1.1.0 --rate 200 --p99 0.05 --cold-start 10")(check)


def check(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="The version."),
    rate: float = typer.Option(50.0, help="Requests a second, sent whatever happens."),
    duration: float = typer.Option(5.0, help="Seconds of load, at most 600."),
    cold_start: float | None = typer.Option(None, help="Seconds from nothing to ready, at most."),
    p99: float | None = typer.Option(None, "--p99", help="Seconds within which 99 of 100 answers come."),
    worker_memory: int | None = typer.Option(
        None, help="Bytes it says it needs: it runs in a worker process that may take no more."
    ),
    input: Path | None = typer.Option(None, help="File with a request as JSON; else rows like the training data."),
    record: bool = typer.Option(True, "--record/--no-record", help="Record the result as evidence for gates."),
) -> None:
    """Try a version under load. Starts a server with nothing else, sends it load, and records what came of it.

    Exit code: 0 successful, 1 failed, 2 inconclusive, 3 error (nothing could be judged).
    """
    here: Context = context.obj
    wanted = _Wanted(rate, duration, cold_start, p99, worker_memory)
    with judging():
        require_within("rate", rate, 0.01, 1e6)
        require_within("duration", duration, 0.01, 600.0)
        manifest = _unrevoked(here, reference)
        measured = _measure(here, manifest, wanted, input)
        judgement = _judge(measured, wanted)
        document = _document(manifest, measured, wanted, judgement)
        identity = keep_evidence(here, manifest.reference, document) if record else ""
    here.say(document | ({"id": identity} if identity else {}), _told(manifest, judgement, measured, identity))
    end_with(judgement.verdict)


def _unrevoked(here: Context, reference: str) -> VersionManifest:
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.models import OfVersion

    with here.administration() as admin:
        found = admin.do(ATTESTATION, OfVersion(*named_version(reference)))
    if found.revoked:
        raise SalverError("REFUSED_BY_POLICY", f"{reference} was revoked: {found.revoked}", "check another version")
    return found.manifest


def _measure(here: Context, manifest: VersionManifest, wanted: _Wanted, input: Path | None) -> _Measured:
    from salver.clock import SYSTEM_CLOCK
    from salver.control.seed import write_seed

    spec = DeploymentSpec(_ENDPOINT, manifest.model, manifest.version, generation=1)
    if wanted.memory_bytes is not None:
        spec = msgspec.structs.replace(spec, placement=Placement.PROCESS, worker_memory_bytes=wanted.memory_bytes)
    with tempfile.TemporaryDirectory(prefix="salver-check-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        write_seed(home, here.home(), spec, manifest)
        began_s = SYSTEM_CLOCK.monotonic_s()
        with serving_alone(home) as ready:
            cold_start_s = SYSTEM_CLOCK.monotonic_s() - began_s
            failed = ready["failed"]
            if failed:
                return _Measured(cold_start_s, 0, problem=str(failed[0].get("cause") or failed[0].get("error")))
            report = _load(ready["http"], manifest, wanted, input)
            return _Measured(cold_start_s, _memory_bytes(home), report)


@contextlib.contextmanager
def serving_alone(home: Path, *options: str) -> Iterator[dict[str, Any]]:
    """`salver serve` on a home of its own until the block ends or this process dies; gives its ready line."""
    from salver.runtime.environment import environment_without_settings

    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "salver", "--home", str(home)),
            *("serve", "--http", "0", "--control", "0", "--until-stdin-closes", *options),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment_without_settings(),
        process_group=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SalverError("LOAD_FAILED", "the server that was to try the version did not start", "salver doctor")
        yield msgspec.json.decode(line)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _load(url: str, manifest: VersionManifest, wanted: _Wanted, input: Path | None) -> LoadReport:
    from salver.loadgen import LoadPlan, Mode, run_load

    plan = LoadPlan(
        url,
        f"/v2/models/{_ENDPOINT}/infer",
        _body(url, manifest, input),
        (("content-type", "application/json"),),
        mode=Mode.OPEN,
        connections=_CONNECTIONS,
        rate_per_s=wanted.rate_per_s,
        duration_s=wanted.duration_s,
        warmup_s=min(1.0, wanted.duration_s),
    )
    return run_load(plan)


def _body(url: str, manifest: VersionManifest, input: Path | None) -> bytes:
    if input is not None:
        return read_file(input)
    import numpy as np

    from salver.client import Client
    from salver.loadgen import example_request

    with Client(url) as client:
        inputs = client.metadata(_ENDPOINT).inputs
    parameters = {"sequence_start": True, "sequence_end": True} if manifest.keeps_state else {}
    return example_request(inputs, manifest.profile, 1, np.random.default_rng(0), parameters)


def _memory_bytes(home: Path) -> int:
    """What the server measured that the version takes."""
    from salver.control.action import Nothing
    from salver.control.actions.status import STATUS
    from salver.control.remote import RemoteAdministration
    from salver.storage.home import Home

    opened = Home.open(home)
    serving = opened.read_serving()
    if serving is None:
        return 0
    remote = RemoteAdministration(serving.control_socket, opened.admin_token_path.read_text().strip())
    try:
        return max((each.size_bytes for each in remote.do(STATUS, Nothing()).endpoints), default=0)
    finally:
        remote.close()


def _judge(measured: _Measured, wanted: _Wanted) -> Judgement:
    """Whether the candidate did what was asked of it. Too few answers, or a busy generator, prove nothing."""
    if measured.report is None:
        return Judgement(Verdict.FAILED, (f"it did not load: {measured.problem}",))
    report = measured.report
    parts = [_at_most("cold start", measured.cold_start_s, wanted.cold_start_s)]
    if report.interrupted or report.ok + report.failed < _FEWEST:
        parts.append(Judgement(Verdict.INCONCLUSIVE, (f"only {report.ok + report.failed} requests were answered",)))
    elif report.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.errors.items())
        parts.append(Judgement(Verdict.FAILED, (f"of {report.sent} requests failed: {kinds}",)))
    if report.generator_cpu_ratio > _BUSY_RATIO:
        parts.append(Judgement(Verdict.INCONCLUSIVE, ("the load generator itself was the limit",)))
    elif report.achieved_rate_per_s < _KEPT_RATE_RATIO * report.sent / report.measured_s:
        # Arrivals are random: what it kept up with is what came, not what was asked for on average.
        said = (
            f"of {report.sent / report.measured_s:.0f} requests a second it answered {report.achieved_rate_per_s:.0f}"
        )
        parts.append(Judgement(Verdict.FAILED, (said,)))
    if report.latency is not None:
        parts.append(_at_most("p99", report.latency.p99_s, wanted.p99_s))
    return Judgement.together(parts)


def _at_most(name: str, value_s: float, most_s: float | None) -> Judgement:
    said = f"{name} {value_s:.3g} s"
    if most_s is not None and value_s > most_s:
        return Judgement(Verdict.FAILED, (f"{said}, above {most_s:g} s",))
    return Judgement(Verdict.SUCCESSFUL, (said,))


def _document(manifest: VersionManifest, measured: _Measured, wanted: _Wanted, judgement: Judgement) -> dict[str, Any]:
    from salver import __version__
    from salver.clock import SYSTEM_CLOCK
    from salver.registry.gates import OPERATIONAL_SUITE

    numbers: dict[str, Any] = {"cold_start_s": measured.cold_start_s, "memory_bytes": measured.memory_bytes}
    report = measured.report
    if report is not None:
        numbers |= {
            "asked_rate_per_s": wanted.rate_per_s,
            "achieved_rate_per_s": report.achieved_rate_per_s,
            "requests": report.sent,
            "failed": report.failed,
        }
        if report.latency is not None:
            numbers |= {"p50_s": report.latency.p50_s, "p99_s": report.latency.p99_s, "max_s": report.latency.max_s}
    return {
        "suite": OPERATIONAL_SUITE,
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "model": manifest.model,
        "version": manifest.version,
        "digest": manifest.digest,
        "numbers": numbers,
        "declared_memory_bytes": wanted.memory_bytes,
        "processors": os.cpu_count(),
        "at_s": SYSTEM_CLOCK.wall_s(),
        "salver": __version__,
    }


def _told(manifest: VersionManifest, judgement: Judgement, measured: _Measured, identity: str) -> str:
    lines = [f"{manifest.reference}: {judgement.verdict}", *(f"  {reason}" for reason in judgement.reasons)]
    if measured.report is not None:
        lines.append(f"  {measured.report.ok} answers, {measured.report.achieved_rate_per_s:.0f} a second")
    if measured.memory_bytes:
        lines.append(f"  {measured.memory_bytes / 1e6:.1f} MB of memory")
    if identity:
        lines.append(f"recorded as {identity}")
    return "\n".join(lines)
