"""`salver export`, `salver verify` and `salver revoke`: versions outside of a home, their proof, and their recall."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context, Exit
from salver.cli.files import read_file
from salver.cli.tables import counted
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version, split_reference

if TYPE_CHECKING:
    from salver.registry.exported import Checked
    from salver.security.keys import TrustedKeys

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export", epilog="Example: salver export digits@1.0.0 digits-1.0.0")(export)
    app.command("verify", epilog="Example: salver verify digits-1.0.0 --public-key signing.pub")(verify)
    app.command("revoke", epilog='Example: salver revoke digits@1.0.0 --why "trained on the wrong labels"')(revoke)


def export(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="Without a version the highest release."),
    directory: Path = typer.Argument(help="The directory to write; new, or empty."),
) -> None:
    """Write a version with its signature and the public key."""
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.models import OfVersion
    from salver.registry.exported import write_export
    from salver.storage.opening import open_blobs

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(ATTESTATION, OfVersion(*split_reference(reference)))
    manifest = found.manifest
    write_export(manifest, _trusted(here, None), open_blobs(here.home()), directory)
    here.say(
        {
            "model": manifest.model,
            "version": manifest.version,
            "digest": manifest.digest,
            "directory": str(directory),
            "files": len(manifest.files),
            "size_bytes": manifest.size_bytes,
            "key_id": found.key_id,
            "revoked": found.revoked,
        },
        f"wrote {manifest.reference} to {directory} "
        f"({counted(len(manifest.files), 'file')}, {manifest.size_bytes:,} bytes)\n"
        f"  signed by {found.key_id}\n"
        f"  salver verify {directory}\n"
        f"  model_signing verify key {directory}/model --signature {directory}/model.sig"
        f" --public_key {directory}/signing.pub",
    )
    if found.revoked:
        here.note(f"{manifest.reference} was revoked here, which nobody can tell from the files: {found.revoked}")


def verify(
    context: typer.Context,
    target: str = typer.Argument(help="A directory that `salver export` wrote, or NAME@VERSION of this home."),
    signature: Path | None = typer.Option(None, help="The signature over the files of another directory."),
    public_key: Path | None = typer.Option(None, help="Who must have signed; by default any key the home trusts."),
) -> None:
    """Check a signature and every byte under it. Exit code 0 when all is as it was signed, else 1 or 3."""
    from salver.registry.exported import check_export, check_files_of, read_signature

    here: Context = context.obj
    keys = _trusted(here, public_key)
    directory = Path(target)
    if signature is not None:
        if not directory.is_dir():
            raise SalverError("NOT_FOUND", f"there is no directory {target!r}", "name the directory that was signed")
        checked = check_files_of(directory, read_signature(signature), keys, signature)
    elif directory.is_dir():
        checked = check_export(directory, keys)
    elif "@" in target and not directory.exists():
        checked = _check_stored(here, target, keys)
    else:
        raise SalverError(
            "NOT_FOUND",
            f"there is no directory {target[:200]!r}",
            "name one that `salver export` wrote, or NAME@VERSION of this home",
        )
    here.say(checked, _told(checked))
    if not checked.ok:
        raise Exit(1)


def _check_stored(here: Context, reference: str, keys: TrustedKeys) -> Checked:
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.models import OfVersion
    from salver.registry.exported import Checked
    from salver.security.model_signing import require_manifest
    from salver.storage.opening import open_blobs

    with here.administration() as admin:
        found = admin.do(ATTESTATION, OfVersion(*split_reference(reference)))
    manifest = found.manifest
    signed = require_manifest(manifest, keys)
    problems = [f"it was revoked: {found.revoked}"] if found.revoked else []
    blobs = open_blobs(here.home())
    for file in manifest.files:
        try:
            blobs.verify(file.sha256)
        except SalverError as error:
            problems.append(f"file {file.path!r}: {error.message}")
    return Checked(not problems, signed.key_id, manifest.reference, len(manifest.files), tuple(problems))


def _told(checked: Checked) -> str:
    lines = [f"{checked.subject}: {'verified' if checked.ok else 'NOT verified'}, {counted(checked.files, 'file')}"]
    lines.append(f"  signed by {checked.key_id}")
    return "\n".join(lines + [f"  {problem}" for problem in checked.problems])


def revoke(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="The version."),
) -> None:
    """Have a version loaded nowhere any more. Needs --why. It is not deployed either, and that cannot be taken back."""
    from salver.control.actions.revocations import REVOKE, AskedRevocation

    here: Context = context.obj
    model, version = named_version(reference)
    with here.administration() as admin:
        done = admin.do(REVOKE, AskedRevocation(model, version, here.why))
    here.say(done, f"revoked {done.revocation.reference}")
    if done.endpoints:
        here.note(
            f"still deployed at {', '.join(done.endpoints)}, and answering until replaced: "
            "deploy another version there now"
        )


def _trusted(here: Context, public_key: Path | None) -> TrustedKeys:
    """The one key that was named, or those of the home."""
    from salver.registry.keyring import Keyring
    from salver.security.keys import TrustedKeys, VerifyingKey

    if public_key is None:
        return Keyring(here.home()).trusted()
    key = VerifyingKey.parse(read_file(public_key), public_key.name)
    return TrustedKeys({key.key_id: key})
