"""Walking through an example: each command as a person would type it, with what it prints, against a real server."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from salver.cli import main


class Walk:
    """A home in a folder, and the commands on it. Every command must end with the code that is expected of it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.began = time.perf_counter()

    def step(self, title: str) -> None:
        """Say what comes next."""
        print(f"\n# {title}", flush=True)

    def salver(self, *words: object, ends: int | None = 0, token: str = "", why: str = "") -> None:
        """Run one command in the folder of the example's files."""
        line = [str(word) for word in words] + (["--why", why] if why else [])
        quoted = " ".join(f'"{word}"' if " " in word or not word else word for word in line)
        print(f"$ {'SALVER_TOKEN=... ' if token else ''}salver {quoted}", flush=True)
        with contextlib.chdir(self.folder), _token(token):
            code = main(["--home", str(self.home), *line])
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            print(f"exit code {code}", flush=True)
        if ends is not None and code != ends:
            raise SystemExit(f"salver {line[0]} ended with {code}, and {ends} was expected")

    def stand(self, model: str, stages: dict[str, str]) -> None:
        """Fail unless the versions of a model have come to these stages, no further and no less far."""
        with quiet() as said:
            main(["--home", str(self.home), "--json", "stage", model])
        found = {each["version"]: each["stage"] for each in json.loads(said.getvalue())}
        if found != stages:
            raise SystemExit(f"the versions of {model} stand in {found}, and {stages} was expected")

    @contextlib.contextmanager
    def serving(self):
        """`salver serve` until the block ends; gives its ready line."""
        print("$ salver serve &", flush=True)
        line = [sys.executable, "-m", "salver", "--home", str(self.home), "serve", "--until-stdin-closes"]
        process = subprocess.Popen(
            [*line, "--http", "0", "--control", "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its log is not what this is about
        )
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def done(self) -> None:
        """Say how long it took."""
        print(f"\nDone in {time.perf_counter() - self.began:.0f} s.", flush=True)


@contextlib.contextmanager
def _token(token: str):
    before = os.environ.pop("SALVER_TOKEN", None)
    if token:
        os.environ["SALVER_TOKEN"] = token
    try:
        yield
    finally:
        os.environ.pop("SALVER_TOKEN", None)
        if before is not None:
            os.environ["SALVER_TOKEN"] = before


def minted(walk: Walk, name: str, role: str) -> str:
    """A token for somebody, which is shown to nobody."""
    print(f"$ salver token create {name} --role {role}", flush=True)
    with quiet() as said:
        main(["--home", str(walk.home), "--json", "token", "create", name, "--role", role])
    return str(json.loads(said.getvalue())["token"])


@contextlib.contextmanager
def quiet():
    """Keep what is printed; gives where it is kept."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        yield said
