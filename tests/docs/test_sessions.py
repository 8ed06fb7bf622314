"""The model of the page on sessions answers as the page says."""

import asyncio
import http.client
import json
import os
import re
import signal
from urllib.parse import urlsplit

import pytest
from pages import ROOT, blocks

import salver
from salver.cli import main
from salver.testing import eventually

PAGE = ROOT / "docs" / "sessions.md"


def exchanges(block):
    """(path, body, answer) of each command that a block shows."""
    found = re.findall(r"^\$ curl -si? localhost:8080(\S+) .*-d '(.*)'\n((?:[^$].*\n|\n)+)", block, re.MULTILINE)
    assert len(found) == block.count("$ curl")
    return found


@pytest.fixture(scope="module")
def shown():
    return [block.text for block in blocks(PAGE)]


def test_the_model_of_the_page_answers_as_the_page_says(tmp_path, shown):
    folder, home = tmp_path / "average", tmp_path / "home"
    folder.mkdir()
    (folder / "model.py").write_text(next(text for text in shown if "class Average" in text))
    (folder / "salver-model.toml").write_text('kind = "sequence"\n')
    for words in (["register", "average", str(folder)], ["deploy", "average"]):
        assert main(["--home", str(home), *words]) == 0
    commands = [block for block in shown if block.startswith("$ curl")]
    asyncio.run(drive(home, commands))


async def drive(home, commands):
    talking, losing = commands
    async with salver.Server(home=home) as server:
        for path, body, answer in exchanges(talking):
            assert await asyncio.to_thread(ask, server.http, path, body) == json.loads(answer)
        ((path, body, answer),) = exchanges(losing)
        lost = json.loads(body)
        lost["parameters"]["sequence_start"] = True
        await asyncio.to_thread(ask, server.http, path, json.dumps(lost))
        os.kill(server.pids["workers"][0], signal.SIGKILL)
        wanted = json.loads(answer.splitlines()[-1])

        def told():
            return ask(server.http, path, body)

        await eventually(lambda: told() == wanted)
        assert "410 Gone" in answer


def ask(url, path, body):
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer
