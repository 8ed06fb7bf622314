"""`salver import`: artifacts of other tools, converted and registered."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.cli.models import registered_document, registered_lines
from salver.cli.tables import table

if TYPE_CHECKING:
    from salver.imports import Imported
    from salver.imports.downloads import Server

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("import", epilog="Example: salver import models:/digits@champion digits")(import_model)


def import_model(
    context: typer.Context,
    source: str = typer.Argument(
        help="A file, a directory, or models:/NAME[/VERSION|@ALIAS] of the tracking server of MLflow."
    ),
    name: str | None = typer.Argument(None, help="What to call the model; without it, what the source is called."),
    kind: str | None = typer.Option(
        None, "--from", help="mlflow, savedmodel, mar or file; without it, what the content suggests."
    ),
    version: str | None = typer.Option(None, help="X.Y.Z, as for `salver register`."),
    trust_code: bool = typer.Option(
        False, "--trust-code", help="Vouch for a pickle or a program of PyTorch, as for `salver register`."
    ),
    converter: Path | None = typer.Option(None, help="The Python that has tensorflow and tf2onnx, for SavedModels."),
    tracking_uri: str | None = typer.Option(
        None, envvar="MLFLOW_TRACKING_URI", help="Where MLflow's tracking server is, for models:/..."
    ),
    allow_private: bool = typer.Option(
        False, "--allow-private", help="Ask a tracking server on another machine of this network, over http too."
    ),
    listed: bool = typer.Option(False, "--list", help="Only list the versions that models:/NAME has."),
) -> None:
    """Register a model of another tool. It is converted, and what it says of itself is kept with it."""
    here: Context = context.obj
    remote = _server(tracking_uri, allow_private) if source.startswith("models:") else None
    if listed:
        _list(here, remote, source)
        return
    with tempfile.TemporaryDirectory(prefix="salver-import-") as scratch:
        made = _converted(remote, source, Path(scratch) / "artifact", kind or "", converter)
        _register(here, made, name or _called(source), version, trust_code=trust_code)


def _server(tracking_uri: str | None, allow_private: bool) -> Server:
    from salver.clock import SYSTEM_CLOCK
    from salver.imports.downloads import Server
    from salver.imports.mlflow_registry import credentials
    from salver.protocol.errors import SalverError

    if not tracking_uri:
        raise SalverError(
            "INVALID_SETTING", "models:/... is on a tracking server, and none is named", "add --tracking-uri URL"
        )
    return Server(tracking_uri, SYSTEM_CLOCK, headers=credentials(), allow_private=allow_private)


def _converted(remote: Server | None, source: str, into: Path, kind: str, converter: Path | None) -> Imported:
    from salver.imports import convert_path, mlflow_registry

    if remote is None:
        return convert_path(Path(source), into, kind=kind, python=converter)
    into.mkdir(mode=0o700)
    return mlflow_registry.convert(remote, source, into)


def _list(here: Context, remote: Server | None, source: str) -> None:
    from salver.imports.mlflow_registry import list_versions, parse_uri
    from salver.protocol.errors import SalverError

    if remote is None:
        raise SalverError("INVALID_SETTING", "--list is for models:/NAME", "add --tracking-uri and name a model")
    found = list_versions(remote, parse_uri(source)[0])
    rows = [
        [str(each.version), each.stage or "-", ", ".join(each.aliases) or "-", each.run_id or "-"] for each in found
    ]
    here.say(found, table(["version", "stage", "aliases", "run"], rows) or "no versions")


def _called(source: str) -> str:
    """What a source is called, as far as that is a name for a model."""
    last = re.split(r"[/@]", source.removeprefix("models:/"))[0] if source.startswith("models:") else ""
    stem = last or Path(source).resolve().name.partition(".")[0]
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")


def _register(here: Context, made: Imported, name: str, version: str | None, *, trust_code: bool) -> None:
    import msgspec

    from salver.control.actions.registration import REGISTER
    from salver.control.registration import draft_version
    from salver.protocol.description import Description, merged
    from salver.protocol.names import SemanticVersion, check_name
    from salver.storage.opening import open_blobs

    check_name(name, "model")
    if version is not None:
        SemanticVersion.parse(version)
    blobs = open_blobs(here.home(make=True))
    draft = draft_version(blobs, name, made.directory, version=version, format=made.format, trust_code=trust_code)
    said = made.described()
    draft = msgspec.structs.replace(
        draft,
        metadata=draft.metadata | made.facts(),
        description=merged(Description(), said) if said else None,
        tags=made.tags(),
    )
    with here.administration() as admin:
        done = admin.do(REGISTER, draft)
    for note in made.notes:
        here.note(f"note: {note}")
    document = registered_document(done) | {"metadata": done.manifest.metadata, "notes": made.notes}
    here.say(document, "\n".join(registered_lines(done, made.metadata.get("flavor", made.format))))
