"""`salver package`: everything a container image of one endpoint is built from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS

if TYPE_CHECKING:
    from salver.protocol.tables import DeploymentSpec, VersionManifest

__all__ = ["add_to"]

_PLATFORMS = ("docker", "sagemaker", "vertex", "azureml")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("package", epilog="Example: salver package digits --out digits-image")(package)


def package(
    context: typer.Context,
    endpoint: str = typer.Argument(help="A deployed endpoint."),
    out: Path | None = typer.Option(None, help="The directory to write; by default ENDPOINT-image."),
    base_image: str | None = typer.Option(None, help="A Python image under an exact tag or digest."),
    image: str | None = typer.Option(None, help="Name and tag of the image to be built."),
    platform: str = typer.Option("docker", help="Who runs it: docker, or sagemaker, vertex, azureml."),
    requirement: list[str] | None = typer.Option(
        None, help="A package the model's own code imports, as for pip; repeat."
    ),
) -> None:
    """Write a container recipe. A directory: Dockerfile, pinned requirements, Salver, and the endpoint's version."""
    if platform not in _PLATFORMS:
        raise SalverError("INVALID_SETTING", f"platform is {platform[:40]!r}", f"use one of {', '.join(_PLATFORMS)}")
    from salver.control.seed import write_seed
    from salver.packaging import write_recipe

    here: Context = context.obj
    spec, manifest = _deployed(here, endpoint)
    extra = FORMATS[manifest.format].extra
    recipe = write_recipe(
        out or Path(f"{endpoint}-image"),
        endpoint=endpoint,
        reference=manifest.reference,
        fill_home=lambda destination: write_seed(destination, here.home(), spec, manifest),
        extras=(extra,) if extra else (),
        also=requirement or (),
        base_image=base_image,
        image=image,
        managed=platform != "docker",
    )
    if manifest.runs_user_code and not requirement:
        here.note(
            f"{manifest.reference} runs code of its own, whose imports are not looked at: "
            "name the packages they need with --requirement"
        )
    here.say(
        recipe,
        f"wrote {recipe.directory} ({recipe.size_bytes / 1e6:.1f} MB, {len(recipe.packages)} packages pinned)\n"
        f"  docker build -t {recipe.image} {recipe.directory}\n"
        f"  {recipe.directory}/README.md says how to run it",
    )


def _deployed(here: Context, endpoint: str) -> tuple[DeploymentSpec, VersionManifest]:
    """What an endpoint serves, with the signature over it; REFUSED_BY_POLICY for what was revoked."""
    from salver.control.action import Nothing
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.models import OfVersion
    from salver.control.actions.status import STATUS

    with here.administration() as admin:
        specs = {spec.endpoint: spec for spec in admin.do(STATUS, Nothing()).deployments}
        spec = specs.get(endpoint)
        if spec is None:
            raise SalverError(
                "NOT_FOUND", f"there is no endpoint {endpoint[:140]!r}", f"deployed are {', '.join(specs) or 'none'}"
            )
        found = admin.do(ATTESTATION, OfVersion(spec.model, spec.version))
    if found.revoked:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{found.manifest.reference} was revoked: {found.revoked}",
            "deploy another version, then package that",
        )
    return spec, found.manifest
