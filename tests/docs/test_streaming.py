"""What the pages on answers bit by bit show is what is printed."""

import asyncio
import contextlib
import io
import re
import runpy
import subprocess
import sys
import urllib.request

import pytest
from pages import ROOT, blocks

import salver
from salver.cli import main

PAGE = ROOT / "docs" / "streaming.md"
EXAMPLE = ROOT / "examples" / "generator"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with the example and the class of the page; and what `make.py` printed."""
    work = tmp_path_factory.mktemp("streaming")
    home, countdown = work / "home", work / "countdown"
    countdown.mkdir()
    code, declared = (block.text for block in blocks(PAGE)[1:3])
    (countdown / "model.py").write_text(code)
    (countdown / "salver-model.toml").write_text(declared)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(EXAMPLE / "make.py"))["main"](work / "words-model")
    for name, folder in (("words", work / "words-model"), ("countdown", countdown)):
        assert main(["--home", str(home), "register", name, str(folder)]) == 0
        assert main(["--home", str(home), "deploy", name]) == 0
    runner = asyncio.Runner()
    server = salver.Server(home=home)
    runner.run(server.__aenter__())
    try:
        assert server.failed == []
        yield server.http, printed.getvalue()
    finally:
        runner.run(server.__aexit__(None, None, None))
        runner.close()


def asked(url, path, body):
    request = urllib.request.Request(f"{url}{path}", body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as page:
        return page.read().decode()


def exchanges(path):
    """Of each `curl` on a page: the path, the body, and what it printed."""
    commands = [command for block in blocks(path) for command in re.split(r"^\$ ", block.text, flags=re.MULTILINE)]
    for command in commands:
        found = re.match(r"curl -s\w* localhost:8080(\S+)[^']*(?:'content-type[^']*' )?-d '([^']*)'\n", command)
        if found:
            yield found[1], found[2], command[found.end() :].strip()


@pytest.mark.parametrize("path", [PAGE, EXAMPLE / "README.md"], ids=lambda path: path.name)
def test_what_is_shown_is_what_is_printed(served, path):
    shown = list(exchanges(path))
    assert len(shown) == (3 if path is PAGE else 1)
    for route, body, printed in shown:
        assert asked(served[0], route, body).strip() == printed


def test_what_make_prints_is_shown(served):
    assert served[1] in blocks(PAGE)[0].text


def test_the_class_of_the_page_counts_down(served):
    body = '{"start": 3}'
    assert '"text_output":"3 2 1 "' in asked(served[0], "/v2/models/countdown/generate", body)
    assert asked(served[0], "/v2/models/countdown/generate_stream", body).count("data: ") == 3


def test_the_conversation_of_the_page_is_held(served):
    code = next(block.text for block in blocks(PAGE) if "websockets" in block.text)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("localhost:8080", served[0].partition("//")[2])],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" Derivative Works; and (d)")
    assert len(done.stdout.split()) == 20
