"""`salver register` and `salver models`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.descriptions import describe_signature, read_description, read_tags
from salver.cli.tables import marks, table
from salver.protocol.description import Description
from salver.protocol.tables import VersionManifest

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.control.origin import Origin
    from salver.control.registration import Registered
    from salver.registry.availability import Standing

__all__ = ["add_to", "registered_document", "registered_lines"]

_MOST: Final = 1_000_000


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
    training_data: Path | None = typer.Option(
        None, help="The file it was trained on: its digest is recorded, and its columns are the profile if they fit."
    ),
    target: str = typer.Option("", help="The column of the training data that it predicts, which is no input."),
    lock: Path | None = typer.Option(None, help="The lock file of the environment it was trained in."),
    no_git: bool = typer.Option(
        False, "--no-git", help="Do not record the commit of the git checkout that the artifact, or you, are in."
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
    from salver.control.actions.registration import REGISTER
    from salver.control.origin import Sources, origin_of
    from salver.control.registration import draft_version
    from salver.storage.opening import open_blobs

    here: Context = context.obj
    _check(name, version)
    said = read_description(description, set, metric, parameter)
    origin = origin_of(path, Sources(training_data, target, lock, git=not no_git), said)
    draft = draft_version(
        *(open_blobs(here.home(make=True)), name, path),
        version=version, format=format, profile=profile, columns=origin.columns, trust_code=trust_code,
    )  # fmt: skip
    draft = msgspec.structs.replace(
        draft, description=origin.description, tags=read_tags(tag), publisher_signature=_signed(signature)
    )
    with here.administration() as admin:
        done = admin.do(REGISTER, draft)
    _tell(here, done, origin, training_data, described=bool(said or tag or training_data or lock))


def _check(name: str, version: str | None) -> None:
    from salver.protocol.names import SemanticVersion, check_name

    check_name(name, "model")
    if version is not None:
        SemanticVersion.parse(version)


def _signed(signature: Path | None) -> str:
    from salver.registry.exported import read_signature

    return read_signature(signature) if signature else ""


def _tell(here: Context, done: Registered, origin: Origin, training_data: Path | None, *, described: bool) -> None:
    """Say what was registered, and what of the asked for was not."""
    said, notes = (done.created and origin.description) or Description(), []
    if described and not done.created:
        notes.append(
            "what is said of it, with its training data and lock file, was left as it is; `salver describe` "
            "(training_data, environment) and `salver tag` change it"
        )
    if training_data is not None and done.manifest.profile is None:
        why = origin.unread or "its columns are not the inputs: name the --target, or give --profile"
        notes.append(f"{training_data.name} gives no profile: {why}")
    found = {
        "training_data": said.training_data,
        "lock_digest": said.lock_digest,
        "code_commit": said.code_commit,
        "code_dirty": said.code_dirty,
    }
    here.say(
        registered_document(done) | found | {"notes": notes},
        "\n".join([*registered_lines(done), *_origin_lines(said)]),
    )
    for note in notes:
        here.note(f"note: {note}")


def _origin_lines(said: Description) -> Iterator[str]:
    """What was recorded that nobody typed."""
    if said.training_data is not None and said.training_data.digest:
        yield f"  data       sha256:{said.training_data.digest.removeprefix('sha256:')}  {said.training_data.name}"
    if said.lock_digest:
        yield f"  lock       sha256:{said.lock_digest}"
    if said.code_commit:
        yield f"  commit     {said.code_commit}{', with changes that are not committed' if said.code_dirty else ''}"


def registered_document(done: Registered) -> dict[str, Any]:
    """What became of a registration, as JSON has it."""
    manifest = done.manifest
    return {
        "model": manifest.model,
        "version": manifest.version,
        "created": done.created,
        "against": done.against,
        "changes": [{"level": change.level.word, "what": change.what} for change in done.changes],
        "digest": manifest.digest,
        "format": manifest.format,
        "signature": manifest.signature,
        "profiled": [profiled.input for profiled in manifest.profile.inputs] if manifest.profile else [],
    }


def registered_lines(done: Registered, origin: str = "") -> Iterator[str]:
    """The same for people, with where it comes from."""
    manifest = done.manifest
    yield f"{manifest.reference}{'' if done.created else '  (was registered already)'}"
    for change in done.changes:
        yield f"  {change.level.word:<10} {change.what}, against {done.against}"
    if origin:
        yield f"  from       {origin}"
    yield f"  digest     sha256:{manifest.digest}"
    yield f"  format     {manifest.format}"
    yield describe_signature(manifest.signature)


def models(
    context: typer.Context,
    name: str | None = typer.Argument(None, help="A model, to list its versions; without it, all models."),
    limit: int = typer.Option(20, min=1, max=_MOST, help="Versions to show at most, the newest."),
) -> None:
    """List models, or the versions of one."""
    from salver.control.action import Nothing
    from salver.control.actions.models import MODELS
    from salver.protocol.names import check_name

    here: Context = context.obj
    if name is not None:
        check_name(name, "model")
    with here.administration() as admin:
        if name is not None:
            _versions(here, admin, name, limit)
            return
        summaries = admin.do(MODELS, Nothing())
    rows = [[each.name, f"{each.versions:,}", each.latest or "-"] for each in summaries]
    here.say(summaries, table(["model", "versions", "latest release"], rows) or "no models; try `salver register`")


def _versions(here: Context, admin: Administration, name: str, limit: int) -> None:
    from salver.control.actions.lifecycle import STAGES, OfStages

    manifests = sorted(_newest(admin, name, limit), key=lambda each: each.ordinal)
    older = manifests[0].ordinal - 1
    standing = {each.version: each for each in admin.do(STAGES, OfStages(name, older))}
    listed = [(each, standing[each.version]) for each in manifests]
    versions = [msgspec.to_builtins(stands) | msgspec.to_builtins(manifest) for manifest, stands in listed]
    head = ["version", "ordinal", "stage", "format", "digest", "bytes", ""]
    here.say({"versions": versions, "more": older}, table(head, [_row(*each) for each in listed]))
    if older:
        here.note(f"note: and {older:,} more, registered before these: --limit")


def _newest(admin: Administration, name: str, limit: int) -> Iterator[VersionManifest]:
    """The newest versions, page by page."""
    from salver.control.actions.models import VERSIONS, OfVersions
    from salver.registry.catalog import MOST_VERSIONS

    before = None
    while limit:
        page = admin.do(VERSIONS, OfVersions(model=name, limit=min(limit, MOST_VERSIONS), before=before, last=True))
        yield from page
        if len(page) < MOST_VERSIONS:
            return
        limit, before = limit - len(page), page[-1].ordinal


def _row(manifest: VersionManifest, stands: Standing) -> list[str]:
    return [
        *(manifest.version, str(manifest.ordinal), stands.stage, manifest.format),
        *(manifest.digest[:12], f"{manifest.size_bytes:,}", marks(stands)),
    ]
