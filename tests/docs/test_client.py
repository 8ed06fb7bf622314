"""The page on the client prints what it shows, on a real server, with the client's extras and nothing else."""

import asyncio
import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

from pages import ROOT, blocks

import salver
from salver.cli import main

PYTHON = ROOT / ".venvs" / "client" / "bin" / "python"


async def printed(home):
    async with salver.Server(home, grpc=0) as server:
        process = await asyncio.create_subprocess_exec(
            *(str(PYTHON), str(Path(__file__).with_name("page_of_code.py")), str(ROOT / "docs" / "client.md")),
            *(f"http://127.0.0.1:8080={server.http}", f"127.0.0.1:8081={server.grpc}"),
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said, problem = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, problem.decode()
        return [each.replace(server.http, "http://127.0.0.1:8080") for each in json.loads(said)]


def test_the_page_on_the_client_prints_what_it_shows(tmp_path):
    assert PYTHON.exists(), "make venv-client makes the environment this test drives"
    model = next(block.text for block in blocks(ROOT / "README.md") if "class Spread" in block.text)
    (tmp_path / "spread.py").write_text(model)
    for words in (("register", "spread", tmp_path / "spread.py"), ("deploy", "spread")):
        assert main(["--home", str(tmp_path / "home"), *map(str, words)]) == 0
    shown = blocks(ROOT / "docs" / "client.md")
    answers = [after.text for block, after in pairwise(shown) if block.language == "python"]
    assert asyncio.run(printed(tmp_path / "home")) == answers
    assert [block.language for block in shown] == ["python", ""] * len(answers)
