"""`salver dev`: from a file to a served endpoint in one command, reloading on save."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import typer

from salver.cli.context import Context, Exit

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("dev", epilog="Example: salver dev model.py")(dev)


def dev(
    context: typer.Context,
    path: Path = typer.Argument(help="A model file, a Python file with a salver.Model, or a directory."),
    name: str | None = typer.Option(None, help="The endpoint's name; by default from the file's name."),
    http: int = typer.Option(8080, help="Port; 0 takes a free one."),
    format: str | None = typer.Option(None, help="onnx, sklearn or python."),
    trust_code: bool = typer.Option(False, "--trust-code", help="Vouch for a pickle."),
    reload: bool = typer.Option(True, "--reload/--no-reload", help="Deploy again whenever a file changes."),
) -> None:
    """Serve a model from a throw-away home; Ctrl-C removes everything."""
    here: Context = context.obj
    endpoint = name or _name_of(path)
    with tempfile.TemporaryDirectory(prefix="salver-dev-") as folder:
        private = Context(Path(folder) / "home", here.json)
        _deploy(private, endpoint, path, format, trust_code)
        process = subprocess.Popen(
            [sys.executable, "-m", "salver", "--home", str(private.home_path), "serve"]
            + ["--http", str(http), "--control", "0"],
            stdout=subprocess.PIPE,
        )
        stop = threading.Event()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise Exit(process.wait() or 1)
            _announce(here, line, endpoint)
            if reload:
                watcher = threading.Thread(
                    target=_reload_on_save, args=(private, endpoint, path, format, trust_code, stop), daemon=True
                )
                watcher.start()
            raise Exit(process.wait())
        except KeyboardInterrupt:
            raise Exit(0) from None
        finally:
            stop.set()
            process.terminate()
            process.wait()


def _name_of(path: Path) -> str:
    import re

    plain = re.sub(r"[^a-z0-9._-]+", "-", path.resolve().stem.lower()).strip("._-")
    return plain or "model"


def _deploy(here: Context, endpoint: str, path: Path, format: str | None, trust_code: bool) -> str:
    from salver.control.administration import DeployRequest
    from salver.control.registration import draft_version
    from salver.storage.blobs import BlobStore

    draft = draft_version(BlobStore(here.home().blobs_path), endpoint, path, format=format, trust_code=trust_code)
    with here.administration() as admin:
        done = admin.register(draft)
        admin.deploy(DeployRequest(endpoint, done.manifest.version, settings={"required": False}))
    return done.manifest.reference


def _announce(here: Context, line: bytes, endpoint: str) -> None:
    import msgspec

    ready: dict[str, Any] = msgspec.json.decode(line)
    url = f"{ready['http']}/v2/models/{endpoint}"
    problems = "".join(f"\n  failed: {row['endpoint']}: {row['error']}" for row in ready["failed"])
    here.say(
        ready | {"endpoint": endpoint},
        f"serving {endpoint}\n  inputs     curl {url}\n  predict    curl {url}/infer -d @request.json\n"
        f"  docs       {ready['http']}/docs{problems}",
    )


def _reload_on_save(
    here: Context, endpoint: str, path: Path, format: str | None, trust_code: bool, stop: threading.Event
) -> None:
    from watchfiles import watch

    from salver.protocol.errors import SalverError

    for _ in watch(path if path.is_dir() else path.parent, stop_event=stop, raise_interrupt=False):
        try:
            here.note(f"deployed {_deploy(here, endpoint, path, format, trust_code)}")
        except SalverError as error:
            here.note(f"not deployed: {error}")
