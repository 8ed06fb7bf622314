"""`salver case`: inputs that once went wrong, which every later version of a model is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import typer

from salver.cli.context import Context
from salver.cli.files import read_given
from salver.cli.tables import date, table
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.registry.cases import Expectation, KnownCase

__all__ = ["add_to", "all_cases", "parse_expectation"]

_FORM: Final = re.compile(
    r"(?:(?P<output>[^:=\[\]]+)(?:\[(?P<column>[^\]]+)\])?:)?(?P<kind>\w+)(?:=(?P<value>.*))?", re.DOTALL
)
_HOW: Final = (
    "write [OUTPUT:]label=X, [OUTPUT[COLUMN]:]range=LOW..HIGH (an end may be left out), "
    "[OUTPUT:]equal=JSON, refused or refused=CODE"
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    case = typer.Typer(help="Inputs that once went wrong, for every version.", no_args_is_help=True)
    case.command(
        "add",
        epilog='Example: salver case add cancer --input request.json --expect label=1 --source "incident 12"',
    )(add)
    case.command("list", epilog="Example: salver case list cancer")(list_cases)
    case.command("remove", epilog="Example: salver case remove cancer 0b1f4e9a6c1d7f20")(remove)
    app.add_typer(case, name="case")


def add(
    context: typer.Context,
    name: str = typer.Argument(help="The model."),
    input: str = typer.Option("-", help="File with an Open Inference Protocol request (JSON); - is standard input."),
    expect: list[str] = typer.Option(..., help=f"What must come of it; may be repeated. {_HOW[0].upper()}{_HOW[1:]}."),
    source: str = typer.Option(..., help='What it comes from, such as "incident 12".'),
    tolerance: float = typer.Option(0.0, help="By how much numbers of `equal` may differ."),
) -> None:
    """Have every later version of a model asked this; the very same case again changes nothing."""
    from salver.control.actions.cases import ADD_CASE, NewCase
    from salver.registry.cases import Case, check_case

    here: Context = context.obj
    check_name(name, "model")
    case = check_case(Case(_read(input), tuple(parse_expectation(each, tolerance) for each in expect), source))
    with here.administration() as admin:
        done = admin.do(ADD_CASE, NewCase(name, case.request, case.expect, source))
    what = "is asked" if done.created else "was asked already"
    here.say(done, f"{name} {what} {done.case.id}: {'; '.join(map(described, case.expect))} ({source})")


def list_cases(context: typer.Context, name: str = typer.Argument(help="A model.")) -> None:
    """Show what every version of a model is asked."""
    here: Context = context.obj
    check_name(name, "model")
    with here.administration() as admin:
        found = all_cases(admin, name)
    rows = [
        [each.id, "; ".join(map(described, each.expect)), each.source, date(each.recorded_s), each.recorded_by]
        for each in found
    ]
    here.say(found, table(["id", "expects", "source", "recorded", "by"], rows) or "no cases")


def remove(
    context: typer.Context,
    name: str = typer.Argument(help="The model."),
    case: str = typer.Argument(metavar="ID", help="The id of the case."),
) -> None:
    """Ask later versions this no more."""
    from salver.control.actions.cases import REMOVE_CASE, CaseOf

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(REMOVE_CASE, CaseOf(check_name(name, "model"), case))
    here.say(done, f"{name} is asked {done.id} no more ({done.source})")


def all_cases(admin: Administration, model: str) -> tuple[KnownCase, ...]:
    """Every case of a model."""
    from salver.control.actions.cases import CASES, OfCases

    found: list[KnownCase] = []
    while page := admin.do(CASES, OfCases(model, found[-1].id if found else "")):
        found += page
    return tuple(found)


def parse_expectation(text: str, tolerance: float = 0.0) -> Expectation:
    """An expectation as the command line writes it; raises INVALID_PARAMETER for what is none.

    >>> parse_expectation("probabilities[1]:range=0.5..").at_least
    0.5
    """
    from salver.registry.cases import Equal, InRange, Labelled, Refused

    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise _no_expectation(text)
    kind, value, output = form["kind"], form["value"], (form["output"] or "").strip()
    column = form["column"]
    if kind == "refused" and not output:
        return Refused(value or "")
    if kind == "label" and value and column is None:
        return Labelled(output=output, label=value)
    if kind == "range" and value:
        low, dots, high = value.partition("..")
        if dots:
            place: str | int | None = int(column) if column and column.isdigit() else column
            return InRange(output=output, column=place, at_least=_number(low, text), at_most=_number(high, text))
    if kind == "equal" and value and column is None:
        return Equal(output=output, values=_json(value, text), tolerance=tolerance)
    raise _no_expectation(text)


def _number(text: str, whole: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise _no_expectation(whole) from None


def _json(text: str, whole: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise _no_expectation(whole) from None


def _no_expectation(text: str) -> SalverError:
    return SalverError("INVALID_PARAMETER", f"--expect {text[:80]!r} is no expectation", _HOW)


def described(expected: Expectation) -> str:
    """An expectation in words."""
    from salver.registry.cases import Equal, Labelled, Refused

    if isinstance(expected, Refused):
        return f"refused with {expected.code}" if expected.code else "refused"
    of = f"{expected.output} " if expected.output else ""
    if isinstance(expected, Labelled):
        return f"{of}label {expected.label}"
    if isinstance(expected, Equal):
        about = f" within {expected.tolerance:g}" if expected.tolerance else ""
        return f"{of}equals {str(expected.values)[:40]}{about}"
    column = "" if expected.column is None else f"[{expected.column}] "
    ends = [f"at least {expected.at_least:g}"] if expected.at_least is not None else []
    ends += [f"at most {expected.at_most:g}"] if expected.at_most is not None else []
    return f"{of.strip()}{column or ' ' * bool(of)}{' and '.join(ends)}"


def _read(input: str) -> str:
    content, called = read_given(input)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SalverError("INVALID_PARAMETER", f"{called} is not UTF-8", "give a request in JSON") from None
