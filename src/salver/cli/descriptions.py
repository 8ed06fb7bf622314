"""`salver show`, `salver describe`, `salver tag` and `salver alias`: what is said of versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.tables import counted, date, table
from salver.protocol.errors import SalverError
from salver.protocol.names import split_reference

if TYPE_CHECKING:
    from salver.protocol.description import Description
    from salver.protocol.signature import Signature, TensorSpec
    from salver.registry.pages import VersionPage

__all__ = ["add_to", "describe_signature", "read_description", "read_tags"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("show", epilog="Example: salver show digits@champion")(show)
    app.command("describe", epilog="Example: salver describe digits@1.0.0 --set owner=vision --metric accuracy=0.97")(
        describe
    )
    app.command("tag", epilog="Example: salver tag digits@1.0.0 team=vision old=")(tag)
    alias = typer.Typer(help="Names for versions that can be moved.", no_args_is_help=True)
    alias.command("set", epilog="Example: salver alias set digits champion 1.2.0")(set_alias)
    alias.command("remove", epilog="Example: salver alias remove digits champion")(remove_alias)
    alias.command("list", epilog="Example: salver alias list digits")(list_aliases)
    app.add_typer(alias, name="alias")


def show(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="A number, an alias, a stage or latest."),
) -> None:
    """Show everything that is known of a version."""
    from salver.control.actions.descriptions import SHOW_VERSION
    from salver.control.actions.models import OfVersion

    here: Context = context.obj
    name, version = split_reference(reference)
    with here.administration() as admin:
        page = admin.do(SHOW_VERSION, OfVersion(name, version))
    here.say(page, "\n".join(_described(page)))


def describe(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="The version; an alias or a stage does as well."),
    description: Path | None = typer.Option(None, help="A TOML or JSON file with fields of the description."),
    set: list[str] = typer.Option([], "--set", help="FIELD=TEXT; nothing behind the = removes the field."),
    metric: list[str] = typer.Option([], "--metric", help="NAME=NUMBER."),
    parameter: list[str] = typer.Option([], "--parameter", help="NAME=VALUE, a hyperparameter."),
) -> None:
    """Change what is said of a version. Its owner, intended use, training data, metrics and so on."""
    from salver.control.actions.descriptions import DESCRIBE, Changes

    here: Context = context.obj
    name, version = split_reference(reference)
    changes = read_description(description, set, metric, parameter)
    if not changes:
        raise SalverError(
            "INVALID_PARAMETER", "nothing is to be changed", "give --description, --set, --metric or --parameter"
        )
    with here.administration() as admin:
        found = admin.do(DESCRIBE, Changes(name, version, changes))
    here.say(found, "\n".join(_fields(found)))


def tag(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="The version; an alias or a stage does as well."),
    tags: list[str] = typer.Argument(help="NAME=VALUE; nothing behind the = removes the tag."),
) -> None:
    """Set and remove free tags of a version."""
    from salver.control.actions.descriptions import TAG, TagChanges

    here: Context = context.obj
    name, version = split_reference(reference)
    with here.administration() as admin:
        found = admin.do(TAG, TagChanges(name, version, {key: value or None for key, value in read_tags(tags).items()}))
    here.say(found, table(["tag", "value"], [[key, value] for key, value in found.items()]) or "no tags")


def set_alias(
    context: typer.Context,
    name: str = typer.Argument(help="A model."),
    alias: str = typer.Argument(help="What to call the version, such as champion or challenger."),
    version: str = typer.Argument(help="The version: a number, another alias, a stage or latest."),
    if_version: str | None = typer.Option(None, help="Only if the alias stands for this version now; '' for none."),
) -> None:
    """Let an alias stand for a version."""
    from salver.control.actions.descriptions import MOVE_ALIAS, AliasMove

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(MOVE_ALIAS, AliasMove(name, alias, version, if_version))
    was = done.before.version if done.before else "nothing"
    here.say(done, f"{name}@{alias} is {done.after.version if done.after else 'nothing'}; it was {was}")


def remove_alias(
    context: typer.Context,
    name: str = typer.Argument(help="A model."),
    alias: str = typer.Argument(help="The alias."),
) -> None:
    """Let an alias stand for nothing."""
    from salver.control.actions.descriptions import REMOVE_ALIAS, AliasRemoval

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(REMOVE_ALIAS, AliasRemoval(name, alias))
    here.say(done, f"{name}@{alias} stands for nothing; it was {done.before.version if done.before else 'nothing'}")


def list_aliases(context: typer.Context, name: str = typer.Argument(help="A model.")) -> None:
    """List the aliases of a model."""
    from salver.control.actions.descriptions import ALIASES
    from salver.control.actions.models import OfModel

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(ALIASES, OfModel(name))
    rows = [[each.alias, each.version, date(each.changed_s), each.changed_by] for each in found]
    here.say(found, table(["alias", "version", "since", "by"], rows) or "no aliases")


def read_description(file: Path | None, fields: list[str], metrics: list[str], parameters: list[str]) -> dict[str, Any]:
    """The merge patch that the options of a command make; raises INVALID_PARAMETER."""
    changes: dict[str, Any] = _read_file(file) if file else {}
    for name, text in _pairs(fields, "--set").items():
        section, _, key = name.partition(".")
        if key:
            changes.setdefault(section, {})[key] = _value(section, key, text)
        else:
            changes[name] = text or None
    for name, text in _pairs(metrics, "--metric").items():
        changes.setdefault("metrics", {})[name] = _number(name, text)
    for name, text in _pairs(parameters, "--parameter").items():
        changes.setdefault("hyperparameters", {})[name] = _setting(text)
    return changes


def read_tags(tags: list[str]) -> dict[str, str]:
    """NAME=VALUE, several."""
    return _pairs(tags, "a tag")


def _read_file(file: Path) -> dict[str, Any]:
    import msgspec

    try:
        decode = msgspec.json.decode if file.suffix == ".json" else msgspec.toml.decode
        return decode(read_file(file), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_PARAMETER", f"{file.name!r} is no TOML or JSON: {error}", "mend the file") from None


def _pairs(given: list[str], what: str) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise SalverError("INVALID_PARAMETER", f"{what} is {each[:80]!r}", "write NAME=VALUE")
        found[name] = value
    return found


def _value(section: str, key: str, text: str) -> Any:
    """What `--set SECTION.KEY=TEXT` means: numbers where the field holds nothing else."""
    if section == "metrics":
        return _number(key, text)
    if section == "hyperparameters":
        return _setting(text)
    if key == "rows" and section.endswith("_data"):
        return int(text) if text.isdecimal() else text or None
    return text or None


def _number(name: str, text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise SalverError("INVALID_PARAMETER", f"metric {name!r} is {text[:80]!r}", "give a number") from None


def _setting(text: str) -> Any:
    import msgspec

    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text or None
    return value if isinstance(value, str | int | float | bool) else text


def _described(page: VersionPage) -> list[str]:
    manifest = page.manifest
    lines = [
        manifest.reference,
        f"  registered  {date(page.registered_s)} by {page.registered_by}",
        f"  stage       {page.stage} since {date(page.stage_since_s)}{'  (EMERGENCY)' if page.emergency else ''}",
        f"  digest      sha256:{manifest.digest}",
        f"  format      {manifest.format}, {counted(len(manifest.files), 'file')}, {manifest.size_bytes:,} bytes",
        describe_signature(manifest.signature, 11),
    ]
    if page.revoked:
        lines.append(f"  revoked     {page.revoked}")
    if page.deleted:
        lines.append(f"  deleted     {page.deleted}")
    if page.held:
        lines.append(f"  held        {page.held}")
    if page.aliases:
        lines.append(f"  aliases     {', '.join(page.aliases)}")
    if page.endpoints:
        lines.append(f"  deployed    {', '.join(page.endpoints)}")
    if page.tags:
        lines.append(f"  tags        {', '.join(f'{name}={value}' for name, value in page.tags.items())}")
    return lines + _fields(page.description)


def describe_signature(signature: Signature, width: int = 10) -> str:
    """The inputs and outputs, a line each, behind a first column of `width`."""

    def line(side: str, spec: TensorSpec) -> str:
        shape = ", ".join("any" if size == -1 else str(size) for size in spec.shape)
        return f"  {side:<{width}} {spec.name}  {spec.datatype} [{shape}]{'  optional' if spec.optional else ''}"

    lines = [line("input", spec) for spec in signature.inputs] + [line("output", spec) for spec in signature.outputs]
    return "\n".join(lines)


def _fields(description: Description) -> list[str]:
    import msgspec

    lines = []
    for name, value in msgspec.to_builtins(description).items():
        if isinstance(value, dict):
            lines += [f"  {name}.{key}: {each}" for key, each in value.items()]
        elif name == "environment":
            lines.append(f"  {name}: {len(value.splitlines())} lines")
        else:
            lines.append(f"  {name}: {value}")
    return lines
