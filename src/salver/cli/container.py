"""`salver container`: what an image for SageMaker, Vertex AI or Azure Machine Learning starts."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from salver.cli.context import Context, Exit
from salver.cli.serve import serve_home
from salver.protocol.errors import SalverError

__all__ = ["add_to"]

_PLATFORM = "platform"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("container", epilog="Example: salver container serve")(container)


def container(
    context: typer.Context,
    command: str = typer.Argument("serve", help="What platforms say: serve."),
    artifact: Path | None = typer.Option(None, help="The artifact to serve; by default where the platform has put it."),
    endpoint: str = typer.Option("model", help="The endpoint of that artifact."),
    trust_code: bool = typer.Option(False, "--trust-code", help="Vouch for a pickle, which can run any code."),
    until_stdin_closes: bool = typer.Option(
        False, "--until-stdin-closes", help="End with the program that holds the other end of standard input."
    ),
) -> None:
    """Serve as a cloud platform's container. SageMaker, Vertex AI and Azure ML say how in its environment."""
    from salver.packaging.platform import read_platform

    here: Context = context.obj
    if command != "serve":
        raise SalverError("INVALID_SETTING", f"a container is told to {command[:40]!r}", "this one can only serve")
    platform = read_platform(os.environ, artifact)
    settings = dict(platform.settings)
    if platform.model is not None:
        _deploy(here, platform.model, endpoint, trust_code=trust_code)
        if "SALVER_SERVER_DEFAULT_ENDPOINT" not in os.environ:
            settings["default_endpoint"] = endpoint
    elif not platform.has_several:
        _require_deployed(here)
    if platform.has_several:
        settings["default_token"] = _platform_token(here)
    code = serve_home(here, None, settings, 0 if until_stdin_closes else None)
    if code:
        raise Exit(code)


def _deploy(here: Context, path: Path, name: str, *, trust_code: bool) -> None:
    """Register what the platform has put there and make it what the endpoint serves."""
    from salver.control.actions.deployments import DEPLOY
    from salver.control.actions.registration import REGISTER
    from salver.control.registration import draft_version
    from salver.registry.deploy_request import DeployRequest
    from salver.storage.opening import open_blobs

    draft = draft_version(open_blobs(here.home(make=True)), name, path, trust_code=trust_code)
    with here.administration() as admin:
        version = admin.do(REGISTER, draft).manifest.version
        admin.do(DEPLOY, DeployRequest(name, version))


def _require_deployed(here: Context) -> None:
    from salver.control.action import Nothing
    from salver.control.actions.status import STATUS

    with here.administration(make_home=True) as admin:
        if not admin.do(STATUS, Nothing()).deployments:
            raise SalverError(
                "NOT_FOUND",
                "the platform has put no model into this container, and its home holds none",
                "name one with --artifact, or build the image with `salver package`",
            )


def _platform_token(here: Context) -> str:
    """A token for the platform, which sends none: it alone reaches the port. Those of earlier starts end."""
    from salver.control.action import Nothing
    from salver.control.actions.tokens import CREATE_TOKEN, REVOKE_TOKEN, TOKENS, OfToken, TokenRequest

    with here.administration(make_home=True) as admin:
        for record in admin.do(TOKENS, Nothing()):
            if record.name == _PLATFORM:
                admin.do(REVOKE_TOKEN, OfToken(record.id))
        return admin.do(CREATE_TOKEN, TokenRequest(_PLATFORM, "operator")).token
