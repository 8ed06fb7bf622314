"""Runs the commands of `model_signing` that come as lines of JSON, and prints each one's exit code and output."""

from __future__ import annotations

import json
import sys

from click.testing import CliRunner
from model_signing._cli import main

for line in sys.stdin:
    done = CliRunner().invoke(main, json.loads(line))
    print(json.dumps([done.exit_code, done.output]), flush=True)
