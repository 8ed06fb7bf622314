"""`salver promote`, `salver approve`, `salver stage`, `salver decisions` and `salver evaluations`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.judging import end_with
from salver.cli.tables import date, marks, table
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name, named_version
from salver.protocol.stages import Stage
from salver.protocol.verdict import Verdict

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.protocol.tables import DeploymentSpec
    from salver.registry.decisions import DecisionRecord
    from salver.registry.lifecycle import Promotion

__all__ = ["add_to"]

_EVIDENCE: Final = (
    "  try: evidence is made by `salver evaluate --record`, `salver check`, `salver describe`, `salver approve`"
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("promote", epilog='Example: salver promote digits@1.1.0 production --why "better on the new scanner"')(
        promote
    )
    app.command("approve", epilog="Example: salver approve digits@1.1.0 production --why checked")(approve)
    app.command("stage", epilog="Example: salver stage digits")(stage)
    app.command("decisions", epilog="Example: salver decisions digits@1.1.0")(decisions)
    app.command("evaluations", epilog="Example: salver evaluations digits@1.1.0 --document evaluation.json")(
        evaluations
    )


def promote(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="The version; an alias does as well."),
    target: Stage = typer.Argument(metavar="STAGE", help=f"Where it is to go: {', '.join(Stage)}."),
    if_stage: Stage | None = typer.Option(None, "--if-stage", help="Only if it is in this stage now."),
    if_production: str | None = typer.Option(
        None, "--if-production", help='Only if this version is in production now; "" for none.'
    ),
    emergency: bool = typer.Option(False, "--emergency", help="Past the gates, with --why; marked for ever."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what the gates say."),
    deploy: bool = typer.Option(False, "--deploy", help="Then deploy it to the endpoint named like the model."),
    endpoint: str | None = typer.Option(None, help="Then deploy it to this endpoint."),
) -> None:
    """Bring a version to another stage. The gates of the policy must be open.

    Exit codes: 0 it is there, also if it was before; 1 a gate failed, or something else is in the way; 2 evidence is
    missing; 3 evidence cannot be read, or the move is not permitted.
    """
    from salver.control.actions.lifecycle import PROMOTE
    from salver.registry.lifecycle import PromotionRequest

    here: Context = context.obj
    asked = PromotionRequest(*named_version(reference), target, here.why, if_stage, if_production, emergency, dry_run)
    with here.administration() as admin:
        done = admin.do(PROMOTE, asked)
        reached = done.moved or done.already
        spec = _deploy(admin, done, endpoint) if reached and (deploy or endpoint) else None
    document: dict[str, Any] = msgspec.to_builtins(done) | ({"endpoint": spec.endpoint} if spec else {})
    here.say(document, "\n".join(_told(done, asked.target, spec)))
    if not reached and done.decision is not None:
        if done.decision.verdict is Verdict.INCONCLUSIVE:
            here.note(_EVIDENCE)
        end_with(done.decision.verdict)


def _deploy(admin: Administration, done: Promotion, endpoint: str | None) -> DeploymentSpec:
    """Have the endpoint serve the version, unless it should do so already."""
    from salver.control.action import Nothing
    from salver.control.actions.deployments import DEPLOY
    from salver.control.actions.status import STATUS
    from salver.registry.deploy_request import DeployRequest

    wanted = endpoint or done.model
    for spec in admin.do(STATUS, Nothing()).deployments:
        if (spec.endpoint, spec.model, spec.version) == (wanted, done.model, done.version):
            return spec
    return admin.do(DEPLOY, DeployRequest(done.model, done.version, wanted))


def _told(done: Promotion, target: Stage, spec: DeploymentSpec | None) -> Iterator[str]:
    reference, decision = done.reference, done.decision
    if done.already:
        yield f"{reference} is in {done.stage} already"
    elif decision is not None and done.moved:
        past = f", past its gates in an emergency: {decision.why}" if decision.emergency else ""
        yield f"{reference}: {decision.source} -> {decision.target}{past}"
    elif decision is not None:
        asked_only = "" if decision.id else " (nothing was changed)"
        number = f", decision {decision.id}" if decision.id else ""
        would = "could go" if decision.verdict is Verdict.SUCCESSFUL else f"stays in {done.stage}, not"
        yield f"{reference} {would} to {target}: {decision.verdict}{number}{asked_only}"
    if decision is not None:
        yield from _gates(decision)
    for each in done.replaced:
        yield f"{each.reference}: production -> {each.stage}"
    if done.emergency and not (decision and decision.emergency and done.moved):
        yield f"note: {reference} was once promoted past its gates"
    if spec is not None:
        yield f"{spec.endpoint} serves {spec.model}@{spec.version}"


def _gates(decision: DecisionRecord) -> Iterator[str]:
    for gate in decision.gates:
        yield f"  {gate.verdict:<12}  {gate.gate}: {'; '.join(gate.reasons)}"
        for each in gate.evidence:
            when = f" {date(each.at_s)}" if each.at_s is not None else ""
            who = f" by {each.actor}" if each.actor else ""
            numbers = "".join(f" {name} {value:g}" for name, value in each.numbers.items())
            yield f"                {each.kind} {each.id}: {each.said}{numbers}{who}{when}"


def approve(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="The version."),
    target: Stage = typer.Argument(metavar="STAGE", help="Where it may go."),
    withdraw: bool = typer.Option(False, "--withdraw", help="Take your approval back."),
) -> None:
    """Agree that a version goes to a stage. Say with --why what you looked at; it holds until the version moves."""
    from salver.control.actions.lifecycle import APPROVE, WITHDRAW, Approve, Withdraw

    here: Context = context.obj
    name, version = named_version(reference)
    with here.administration() as admin:
        if withdraw:
            done = admin.do(WITHDRAW, Withdraw(name, version, target))
        else:
            done = admin.do(APPROVE, Approve(name, version, target, here.why))
    given = done.approval
    what = "has withdrawn the approval of" if withdraw else "approves" if done.changed else "approves as before"
    here.say(done, f"{given.approved_by} {what} {given.model}@{given.version} for {given.target}")


def stage(
    context: typer.Context,
    name: str | None = typer.Argument(None, help="A model; without it all models."),
) -> None:
    """Show in which stage each version is."""
    from salver.control.actions.lifecycle import STAGES, OfStages

    here: Context = context.obj
    if name is not None:
        check_name(name, "model")
    with here.administration() as admin:
        found = admin.do(STAGES, OfStages(name))
    rows = [[each.reference, each.stage.value, date(each.since_s or 0.0), marks(each)] for each in found]
    here.say(found, table(["version", "stage", "since", ""], rows) or "no versions")


def decisions(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="A model or one of its versions."),
    limit: int = typer.Option(20, min=1, max=1000, help="Decisions to show at most, the newest."),
) -> None:
    """Show what was decided about versions. By which gates, and from which evidence."""
    from salver.control.actions.lifecycle import DECISIONS, OfDecisions

    here: Context = context.obj
    name, _, version = reference.partition("@")
    with here.administration() as admin:
        found = admin.do(DECISIONS, OfDecisions(check_name(name, "model"), version or None, limit))
    lines = []
    for each in found:
        outcome = "moved" if each.moved else "refused"
        mark = ", EMERGENCY" if each.emergency else ""
        lines.append(
            f"{each.model}@{each.version} #{each.id}  {date(each.at_s)}  {each.source} -> {each.target}: "
            f"{outcome} ({each.verdict}{mark}) by {each.actor}{f': {each.why}' if each.why else ''}"
        )
        lines += _gates(each)
    here.say(found, "\n".join(lines) or "no decisions")


def evaluations(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="A model or one of its versions."),
    document: Path | None = typer.Option(None, help="A JSON file to record first, as evidence."),
    limit: int = typer.Option(20, min=1, max=1000, help="Evaluations to show at most, the newest."),
) -> None:
    """Show what evaluations found: the evidence of gates."""
    from salver.control.actions.evidence import EVALUATIONS, RECORD_EVALUATION, NewEvaluation, OfEvaluations

    here: Context = context.obj
    recorded = None if document is None else _read_document(document)
    name, _, version = reference.partition("@")
    with here.administration() as admin:
        if recorded is not None:
            admin.do(RECORD_EVALUATION, NewEvaluation(*named_version(reference), recorded))
        found = admin.do(EVALUATIONS, OfEvaluations(check_name(name, "model"), version or None, limit))
    rows = [
        [f"{each.model}@{each.version}", each.id, each.suite, each.verdict, date(each.recorded_s), each.recorded_by]
        for each in found
    ]
    head = ["version", "id", "suite", "verdict", "recorded", "by"]
    here.say(found, table(head, rows) or "no evaluations")


def _read_document(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(read_file(path), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise SalverError(
            "INVALID_JSON", f"{path.name!r} is no JSON object: {error}", "give what `salver evaluate --json` prints"
        ) from None
