"""`salver register` and `salver models`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salver.cli.context import Context
from salver.cli.descriptions import describe_signature, read_description, read_tags
from salver.cli.tables import table
from salver.protocol.tables import VersionManifest

if TYPE_CHECKING:
    from salver.control.administration import Registered

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("register", epilog="Example: salver register digits model.onnx --profile train.npy")(register)
    app.command("models", epilog="Example: salver models digits")(models)


def register(  # noqa: PLR0913, PLR0917 - one argument for each option
    context: typer.Context,
    name: str = typer.Argument(help="What to call the model: lower-case letters, digits, '.', '_' and '-'."),
    path: Path = typer.Argument(help="A model file, a Python file, or a directory with a salver-model.toml."),
    version: str | None = typer.Option(
        None, help="X.Y.Z; without it 1.0.0, later the next that says enough of what changed."
    ),
    format: str | None = typer.Option(
        None, help="onnx, sklearn, xgboost, lightgbm, torch or python; without it, the only one the files suggest."
    ),
    profile: Path | None = typer.Option(
        None, help="Training inputs (npy, csv or parquet); values unlike them will be warned of."
    ),
    trust_code: bool = typer.Option(
        False,
        "--trust-code",
        help="Vouch for a pickle, or a skops file with types that skops does not trust, such as those of trees and "
        "forests. Loading it can run any code; it will, in a worker process.",
    ),
    signature: Path | None = typer.Option(
        None, help="The signature that the files came with, by a trusted key (salver keys trust)."
    ),
    description: Path | None = typer.Option(
        None, "--description", help="A TOML or JSON file with what is to be said of it; see `salver describe`."
    ),
    set: list[str] = typer.Option([], "--set", help="FIELD=TEXT of the description."),
    metric: list[str] = typer.Option([], "--metric", help="NAME=NUMBER, how good it is."),
    parameter: list[str] = typer.Option([], "--parameter", help="NAME=VALUE, a hyperparameter."),
    tag: list[str] = typer.Option([], "--tag", help="NAME=VALUE, a free tag."),
) -> None:
    """Add a version of a model to the registry."""
    import msgspec

    from salver.control.registration import draft_version
    from salver.protocol.description import Description, merged
    from salver.protocol.names import SemanticVersion, check_name
    from salver.storage.opening import open_blobs

    here: Context = context.obj
    check_name(name, "model")
    if version is not None:
        SemanticVersion.parse(version)
    blobs = open_blobs(here.home(make=True))
    draft = draft_version(blobs, name, path, version=version, format=format, profile=profile, trust_code=trust_code)
    said = read_description(description, set, metric, parameter)
    if signature is not None:
        from salver.registry.exported import read_signature

        draft = msgspec.structs.replace(draft, publisher_signature=read_signature(signature))
    draft = msgspec.structs.replace(
        draft, description=merged(Description(), said) if said else None, tags=read_tags(tag)
    )
    with here.administration() as admin:
        done = admin.register(draft)
    here.say(_document(done), "\n".join(_described(done)))
    if not done.created and (said or tag):
        here.note("note: what is said of it was left as it is; `salver describe` and `salver tag` change it")


def _document(done: Registered) -> dict[str, Any]:
    manifest = done.manifest
    return {
        "model": manifest.model,
        "version": manifest.version,
        "reference": manifest.reference,
        "created": done.created,
        "against": done.against,
        "changes": [{"level": change.level.word, "what": change.what} for change in done.changes],
        "digest": manifest.digest,
        "format": manifest.format,
        "signature": manifest.signature,
        "profiled": [profiled.input for profiled in manifest.profile.inputs] if manifest.profile else [],
    }


def _described(done: Registered) -> Iterator[str]:
    manifest = done.manifest
    yield f"{manifest.reference}{'' if done.created else '  (was registered already)'}"
    for change in done.changes:
        yield f"  {change.level.word:<10} {change.what}, against {done.against}"
    yield f"  digest     sha256:{manifest.digest}"
    yield f"  format     {manifest.format}"
    yield describe_signature(manifest.signature)


def models(
    context: typer.Context,
    name: str | None = typer.Argument(None, help="A model, to list its versions; without it, all models."),
) -> None:
    """List models, or the versions of one."""
    here: Context = context.obj
    with here.administration() as admin:
        if name is None:
            summaries = admin.models()
            rows = [[each.name, str(len(each.versions)), each.latest or "-"] for each in summaries]
            here.say(
                summaries, table(["model", "versions", "latest release"], rows) or "no models; try `salver register`"
            )
        else:
            manifests = admin.versions(name)
            here.say(manifests, table(["version", "ordinal", "format", "digest", "bytes"], list(map(_row, manifests))))


def _row(manifest: VersionManifest) -> list[str]:
    size = sum(file.size_bytes for file in manifest.files)
    return [manifest.version, str(manifest.ordinal), manifest.format, manifest.digest[:12], f"{size:,}"]
