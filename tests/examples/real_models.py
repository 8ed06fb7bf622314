"""Where the real models come from, and what the pages of their examples say to do."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pages import ROOT, blocks

MODELS = ROOT / ".venvs" / "models"
WHEELS = MODELS / "wheels"
EXAMPLES = ("minilm", "magika", "silero_vad")


class Served(NamedTuple):
    """A server of all models, its home, and the folder of their artifacts."""

    http: str
    grpc: str
    home: Path
    artifacts: Path

    def exchange(self, example):
        """What the command that a page shows behind `$ ` prints here, and what the page says that it prints."""
        shown = next(block.text for block in blocks(page(example)) if block.text.startswith("$ python "))
        command, _, printed = shown.partition("\n")
        words = shlex.split(command.removeprefix("$ python ").replace("http://127.0.0.1:8080", self.http))
        return run(*(self.artifacts / word if re.match(r"\w+-model/", word) else word for word in words)), printed


def page(example):
    return ROOT / "examples" / example / "README.md"


def steps(example):
    """The commands that a page begins with, in words."""
    return [shlex.split(line) for line in blocks(page(example))[0].text.splitlines()]


def run(*words):
    """Run a Python program from the root of the repository, and return what it prints."""
    line = [sys.executable, *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
