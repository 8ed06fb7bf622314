"""`salver retrain set`, `list`, `remove` and `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.tables import date, table
from salver.clock import SYSTEM_CLOCK
from salver.protocol.names import check_name
from salver.protocol.verdict import Verdict

if TYPE_CHECKING:
    from salver.control.retraining_hooks import RetrainingHook
    from salver.registry.retraining_runs import RetrainingState

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Retrain by a command when verdicts are bad.", no_args_is_help=True)
    group.command("set", epilog='Example: salver retrain set digits --command "python /srv/train.py"')(set_hook)
    group.command("list", epilog="Example: salver retrain list")(list_hooks)
    group.command("remove", epilog="Example: salver retrain remove digits")(remove)
    group.command("run", epilog="Example: salver retrain run digits --now")(run)
    app.add_typer(group, name="retrain")


def set_hook(
    context: typer.Context,
    name: str = typer.Argument(help="A model."),
    command: str = typer.Option(..., help="A program and its arguments; no shell reads them."),
    on: list[Verdict] = typer.Option([Verdict.FAILED], "--on", help="Verdicts that call it. Repeat for more."),
    suite: str = typer.Option("*", help="Only verdicts of suites with such names."),
    timeout: float = typer.Option(6 * 3600.0, help="Seconds that it may take."),
    cool_down: float = typer.Option(86_400.0, "--cool-down", help="Seconds it rests after a run that made a version."),
    environment: list[str] = typer.Option([], "--pass", help="A variable that it is given. Repeat for more."),
    trust_code: bool = typer.Option(False, "--trust-code", help="Vouch for the pickles that it makes."),
) -> None:
    """Set what retrains a model, on this machine: it runs as the user who serves the home."""
    from salver.control.retraining_hooks import RetrainingHook, command_of
    from salver.control.retraining_hooks import set_hook as keep
    from salver.protocol.errors import SalverError

    here: Context = context.obj
    fields = {
        "command": command_of(command),
        "on": tuple(on),
        "suite": suite,
        "timeout_s": timeout,
        "cool_down_s": cool_down,
        "environment": tuple(environment),
        "trust_code": trust_code,
    }
    try:
        hook = msgspec.convert(fields, RetrainingHook)
    except msgspec.ValidationError as error:
        raise SalverError("INVALID_SETTING", f"the hook is wrong: {error}", "see `salver retrain set --help`") from None
    keep(here.home(make=True), name, hook)
    _announce(here, name)
    here.say({"model": name, "hook": hook}, f"{name}: {_described(hook)}")


def _announce(here: Context, name: str) -> None:
    from salver.control.actions.models import OfModel
    from salver.control.actions.retraining import ANNOUNCE_HOOK

    with here.administration() as admin:
        admin.do(ANNOUNCE_HOOK, OfModel(name))


def _described(hook: RetrainingHook) -> str:
    when = " or ".join(each.value for each in hook.on)
    return f"{' '.join(hook.command)!r} when suite {hook.suite} is {when}, once in {hook.cool_down_s:g} s"


def list_hooks(context: typer.Context) -> None:
    """List what retrains which model, and how its last run ended."""
    from salver.control.actions.models import OfModel
    from salver.control.actions.retraining import RETRAINING
    from salver.control.retraining_hooks import read_hooks

    here: Context = context.obj
    hooks = read_hooks(here.home())
    with here.administration() as admin:
        states = {name: admin.do(RETRAINING, OfModel(name)) for name in sorted(hooks)}
    rows = [
        [name, ",".join(hooks[name].on), hooks[name].suite, _last(state), _rest(state), " ".join(hooks[name].command)]
        for name, state in states.items()
    ]
    document = {name: {"hook": hooks[name], "state": state} for name, state in states.items()}
    head = ["model", "on", "suite", "last run", "rests until", "command"]
    here.say(document, table(head, rows) or "nothing is retrained")


def _last(state: RetrainingState) -> str:
    if not state.run:
        return "-"
    if state.version:
        return f"{date(state.begun_s)}: made {state.version}"
    several = f", {state.failures} in a row" if state.failures > 1 else ""
    return f"{date(state.begun_s)}: failed{several}: {state.problem}"


def _rest(state: RetrainingState) -> str:
    return date(state.rests_until_s) if state.rests_until_s > SYSTEM_CLOCK.wall_s() else "-"


def remove(context: typer.Context, name: str = typer.Argument(help="A model.")) -> None:
    """Retrain a model no more. A run that is under way goes on."""
    from salver.control.retraining_hooks import remove_hook

    here: Context = context.obj
    hook = remove_hook(here.home(), check_name(name, "model"))
    _announce(here, name)
    here.say({"model": name, "hook": hook}, f"{name} is not retrained any more")


def run(
    context: typer.Context,
    name: str = typer.Argument(help="A model with a hook."),
    evaluation: str | None = typer.Option(None, help="The id of the evaluation it is told of; else the newest."),
    now: bool = typer.Option(False, "--now", help="Also if it was run a short while ago."),
) -> None:
    """Run the command of a model now and register what it makes, as a candidate in development."""
    from salver.control.retraining import retrain

    here: Context = context.obj
    check_name(name, "model")
    done = retrain(here.home(), here.administration, name, SYSTEM_CLOCK, evaluation=evaluation, now=now, why=here.why)
    new = "" if done.created else ", which was registered already"
    document: dict[str, Any] = msgspec.to_builtins(done)
    here.say(document, f"{name}@{done.version}{new}: {done.duration_s:.1f} s")
