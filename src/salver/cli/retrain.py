"""`salver retrain set`, `list`, `remove` and `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.tables import table
from salver.protocol.names import check_name
from salver.protocol.verdict import Verdict

if TYPE_CHECKING:
    from salver.control.retraining_hooks import RetrainingHook

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
    cool_down: float = typer.Option(86_400.0, "--cool-down", help="Seconds before it may begin again."),
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
    from salver.control.actions.compatibility import OfModel
    from salver.control.actions.retraining import ANNOUNCE_HOOK

    with here.administration() as admin:
        admin.do(ANNOUNCE_HOOK, OfModel(name))


def _described(hook: RetrainingHook) -> str:
    when = " or ".join(each.value for each in hook.on)
    return f"{' '.join(hook.command)!r} when suite {hook.suite} is {when}, once in {hook.cool_down_s:g} s"


def list_hooks(context: typer.Context) -> None:
    """List what retrains which model."""
    from salver.control.retraining_hooks import read_hooks

    here: Context = context.obj
    hooks = read_hooks(here.home())
    rows = [
        [name, ",".join(hook.on), hook.suite, f"{hook.cool_down_s:g}", " ".join(hook.command)]
        for name, hook in sorted(hooks.items())
    ]
    here.say(hooks, table(["model", "on", "suite", "rests s", "command"], rows) or "nothing is retrained")


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
    from salver.clock import SYSTEM_CLOCK
    from salver.control.retraining import retrain

    here: Context = context.obj
    check_name(name, "model")
    done = retrain(here.home(), here.administration, name, SYSTEM_CLOCK, evaluation=evaluation, now=now, why=here.why)
    new = "" if done.created else ", which was registered already"
    document: dict[str, Any] = msgspec.to_builtins(done)
    here.say(document, f"{done.reference}{new}: {done.seconds:.1f} s")
