"""`salver dev`: from a file to a served endpoint in one command, reloading on save."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from salver.cli.context import Context, Exit
from salver.cli.sample import sample_request
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.protocol.tables import DeploymentSpec, VersionManifest

__all__ = ["add_to"]

_LOAD_TIMEOUT_S = 120.0
_LOOK_MS = 500

_State = list[tuple[str, int, int, int]]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("dev", epilog="Example: salver dev model.py")(dev)


def dev(
    context: typer.Context,
    path: Path = typer.Argument(help="A model file, a Python file with a salver.Model, or a directory."),
    endpoint: str | None = typer.Option(None, help="The name clients call; by default from the file's name."),
    http: int = typer.Option(8080, help="Port to serve on; 0 takes a free one."),
    format: str | None = typer.Option(None, help="As for `salver register`; without it, what the files suggest."),
    trust_code: bool = typer.Option(False, "--trust-code", help="Vouch for a pickle, which can run any code."),
    reload: bool = typer.Option(True, "--reload/--no-reload", help="Deploy again whenever a file changes."),
) -> None:
    """Serve a model from a throw-away home."""
    here: Context = context.obj
    with _interrupted_by_signals(), tempfile.TemporaryDirectory(prefix="salver-dev-") as folder:
        private = Context(Path(folder) / "home", here.json)
        draft = _Draft(private, path.resolve(), endpoint or _name_of(path), format, trust_code)
        deployed = draft.state()
        draft.deploy()
        with _server(private, http) as process, _handed_on(process) as ends:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line:
                _announce(here, line, draft.endpoint, draft.manifest())
                with draft.reloading(deployed) if reload else contextlib.nullcontext():
                    code = process.wait()
            else:
                code = process.wait() or 1
        if code and not ends.is_set():
            raise Exit(code)


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does, so that nothing is left behind.

    So does SIGINT where it was ignored: shells start commands behind an & like that.
    """
    before = {each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _handed_on(process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Signals end the server, whose end this process waits for: an exception could come up anywhere."""
    ends = threading.Event()

    def end(number: int, frame: object) -> None:
        del number, frame
        ends.set()
        process.send_signal(signal.SIGINT)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    yield ends


@contextlib.contextmanager
def _server(here: Context, http: int) -> Iterator[subprocess.Popen[bytes]]:
    """`salver serve` on a home, until the block ends or this process dies."""
    command = [sys.executable, "-m", "salver", *(["--json"] if here.json else []), "--home", str(here.home_path)]
    process = subprocess.Popen(
        [*command, "serve", "--http", str(http), "--control", "0", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C is for this process, which ends that one
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@dataclass(frozen=True)
class _Draft:
    """What is being developed, and how it is deployed again."""

    here: Context
    path: Path
    endpoint: str
    format: str | None
    trust_code: bool

    def deploy(self) -> DeploymentSpec:
        from salver.control.actions.deployments import DEPLOY
        from salver.control.actions.registration import REGISTER
        from salver.control.registration import draft_version
        from salver.registry.deploy_request import DeployRequest
        from salver.storage.opening import open_blobs

        blobs = open_blobs(self.here.home(make=True))
        draft = draft_version(blobs, self.endpoint, self.path, format=self.format, trust_code=self.trust_code)
        with self.here.administration() as admin:
            version = admin.do(REGISTER, draft).manifest.version
            return admin.do(DEPLOY, DeployRequest(self.endpoint, version, settings={"required": False}))

    def manifest(self) -> VersionManifest:
        """Of what is deployed."""
        from salver.control.actions.models import VERSIONS, OfVersions

        with self.here.administration() as admin:
            return admin.do(VERSIONS, OfVersions(model=self.endpoint, limit=1, last=True))[0]

    def deploy_and_tell(self) -> None:
        """Deploy again and say how it went; the version before serves on when it went badly."""
        from salver.clock import SYSTEM_CLOCK
        from salver.control.action import Nothing
        from salver.control.actions.status import STATUS
        from salver.control.waiting import wait_until_reached

        try:
            spec = self.deploy()
            with self.here.administration() as admin:
                reached = wait_until_reached(
                    lambda: admin.do(STATUS, Nothing()).endpoints, spec, _LOAD_TIMEOUT_S, SYSTEM_CLOCK
                )
        except (SalverError, OSError) as error:
            self.here.note(f"not deployed: {error}")
            return
        problem = reached.cause or reached.problem if reached else f"it did not load within {_LOAD_TIMEOUT_S:g} s"
        reference = f"{spec.model}@{spec.version}"
        self.here.note(f"{reference} failed: {problem}" if problem else f"{reference} serves")

    @contextlib.contextmanager
    def reloading(self, deployed: _State) -> Iterator[None]:
        """Deploy again whenever the artifact on disk is not what was deployed, until the block ends."""
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop, deployed), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join(timeout=10)

    def _watch(self, stop: threading.Event, deployed: _State) -> None:
        from watchfiles import watch

        # A file is watched through its directory: editors replace it. The time-out catches what
        # changed before the watching began.
        for _ in watch(
            self.path.parent if self.path.is_file() else self.path,
            stop_event=stop,
            raise_interrupt=False,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
        ):
            now = self.state()
            if now != deployed:
                deployed = now
                self.deploy_and_tell()

    def state(self) -> _State:
        """What tells whether the artifact has changed."""
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        found = []
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                if file.is_file() and "__pycache__" not in file.parts:
                    found.append((str(file), status.st_ino, status.st_mtime_ns, status.st_size))
        return found


def _name_of(path: Path) -> str:
    plain = re.sub(r"[^a-z0-9._-]+", "-", path.resolve().stem.lower()).strip("._-")
    return plain or "model"


def _announce(here: Context, line: bytes, endpoint: str, manifest: VersionManifest) -> None:
    import msgspec

    ready: dict[str, Any] = msgspec.json.decode(line)
    url = f"{ready['http']}/v2/models/{endpoint}"
    problems = "".join(f"\n  failed: {row['endpoint']}: {row['cause'] or row['error']}" for row in ready["failed"])
    sample = sample_request(manifest.signature.inputs, in_session=manifest.keeps_state)
    asks = f"-H 'content-type: application/json' -d {shlex.quote(sample) if sample else '@request.json'}"
    streams = f"  stream     curl -N {url}/infer_stream {asks}\n" if manifest.streams else ""
    here.say(
        ready | {"endpoint": endpoint},
        f"serving {endpoint}\n  inputs     curl {url}\n"
        f"  predict    curl {url}/infer {asks}\n{streams}"
        f"  docs       {ready['http']}/docs{problems}",
    )
