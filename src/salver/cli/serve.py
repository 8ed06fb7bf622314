"""`salver serve` and `salver version`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from salver.cli.context import Context, Exit

__all__ = ["add_to", "serve_home"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("serve", epilog="Example: salver serve --http 8080 --grpc 8081 --control 8090")(serve)
    app.command("version", epilog="Example: salver version --json")(version)


def serve(
    context: typer.Context,
    host: str | None = typer.Option(None, help="Address of the data listener (127.0.0.1)."),
    http: int | None = typer.Option(None, help="Port of the data listener (8080); 0 takes a free one."),
    grpc: int | None = typer.Option(None, help="Port of the gRPC listener; 0 takes a free one. None without it."),
    control: int | None = typer.Option(None, help="Port of the control listener (8090); 0 takes a free one."),
    processes: int | None = typer.Option(None, help="Server processes behind the same ports, 1-64 (1)."),
    config: Path | None = typer.Option(None, help="A file like salver.toml, with process settings."),
    tls_cert: str | None = typer.Option(None, help="File with the certificate chain in PEM; with --tls-key."),
    tls_key: str | None = typer.Option(None, help="File with its private key in PEM."),
    require_token: bool | None = typer.Option(
        None, "--require-token", help="Ask every client for a token; `salver token create` makes one."
    ),
    insecure: bool | None = typer.Option(None, "--insecure", help="Allow other addresses without TLS and tokens."),
    until_stdin_closes: bool = typer.Option(
        False, "--until-stdin-closes", help="End with the program that holds the other end of standard input."
    ),
) -> None:
    """Serve what is deployed. Prints one JSON line when ready, logs to standard error; Ctrl-C ends it."""
    here: Context = context.obj
    given = {
        "host": host,
        "http": http,
        "grpc": grpc,
        "control": control,
        "processes": processes,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "require_token": require_token,
        "insecure": insecure,
    }
    code = serve_home(here, config, given, 0 if until_stdin_closes else None)
    if code:
        raise Exit(code)


def serve_home(here: Context, config: Path | None, given: dict[str, Any], leash: int | None) -> int:
    """Serve a home, made if it is not there, under settings of `[server]`; return the exit code."""
    import asyncio

    from salver.clock import SYSTEM_CLOCK
    from salver.config import read_settings
    from salver.processes.supervisor import Supervisor
    from salver.telemetry.logs import configure_logs

    settings = read_settings(config, **given)
    configure_logs("supervisor", level=settings.server.log_level)
    return asyncio.run(Supervisor(here.home(make=True), settings, SYSTEM_CLOCK, leash=leash).run())


def version(context: typer.Context) -> None:
    """Print the versions of Salver and what it runs on."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from salver import __version__

    here: Context = context.obj
    found = {"salver": __version__, "python": platform.python_version()}
    for name in ("onnxruntime", "numpy", "scikit-learn", "uvloop", "httptools", "msgspec"):
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            continue
    here.say(found, "\n".join(f"{name:<14} {number}" for name, number in found.items()))
