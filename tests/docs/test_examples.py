"""Every example does what its page says, on a real server."""

import argparse
import asyncio
import contextlib
import io
import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from pages import ROOT, blocks

import salver
from salver.cli import main

EXAMPLES = ROOT / "examples"


def run(*words):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def salver_says(capsys, home, *words):
    capsys.readouterr()
    assert main(["--home", str(home), *map(str, words)]) == 0
    return capsys.readouterr().out


class Served(NamedTuple):
    """A server, its home, and the folder that the scikit-learn example wrote."""

    http: str
    home: Path
    iris: Path


def inference(url, endpoint, body):
    return urllib.request.Request(
        f"{url}/v2/models/{endpoint}/infer", body.encode(), {"content-type": "application/json"}
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Both examples registered, deployed and served, as their pages say."""
    work = tmp_path_factory.mktemp("examples")
    home, iris = work / "home", work / "iris-model"
    with contextlib.redirect_stdout(io.StringIO()) as trained:
        runpy.run_path(str(EXAMPLES / "sklearn_model" / "train.py"))["main"](iris)
    assert trained.getvalue().startswith("accuracy 0.9")
    for words in (
        ("register", "iris", iris / "model.skops", "--profile", iris / "train.npy"),
        ("register", "language", EXAMPLES / "python_model" / "language"),
        ("deploy", "iris"),
        ("deploy", "language"),
    ):
        assert main(["--home", str(home), *map(str, words)]) == 0
    runner = asyncio.Runner()
    server = salver.Server(home=home)
    runner.run(server.__aenter__())
    try:
        assert server.failed == []
        yield Served(server.http, home, iris)
    finally:
        runner.run(server.__aexit__(None, None, None))
        runner.close()


def test_the_scikit_learn_example_runs_in_the_server_process_and_the_python_example_in_a_worker(capsys, served):
    status = json.loads(salver_says(capsys, served.home, "status", "--json"))
    endpoints = {row["endpoint"]: row for row in status["endpoints"]}
    assert endpoints["iris"]["placement"] in ("inline", "thread")
    assert endpoints["language"]["placement"] == "process"


def test_the_client_example_prints_predictions(served):
    printed = run(EXAMPLES / "client" / "predict.py", served.http, "iris", served.iris / "rows.npy")
    assert printed.startswith("<Prediction of iris@1.0.0: label object[5], probabilities float64[5, 3]>\nlabel: [b'")


def test_the_client_example_says_what_is_wrong(served):
    words = [EXAMPLES / "client" / "predict.py", served.http, "rose", served.iris / "rows.npy"]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "NOT_FOUND: there is no endpoint 'rose'; there are iris, language\n")


def test_the_request_of_the_curl_example_is_answered(served):
    script = EXAMPLES / "client" / "predict.sh"
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=60)
    body = re.search(r"--data '(.*)'$", script.read_text(), re.MULTILINE)[1]
    with urllib.request.urlopen(inference(served.http, "language", body)) as page:
        assert json.load(page)["outputs"][0]["data"] == [0.0, 0.0, 1.0]


def test_the_page_of_the_python_example_shows_its_real_answer(served):
    texts = [block.text for block in blocks(EXAMPLES / "python_model" / "README.md")]
    body = texts[1].partition("-d '")[2].rstrip().rstrip("'")
    with urllib.request.urlopen(inference(served.http, "language", body)) as page:
        assert page.read().decode() == texts[2].strip()


def test_the_text_classifier_of_the_page_on_models_answers_as_the_page_says(capsys, tmp_path, served):
    shown = [block.text for block in blocks(ROOT / "docs" / "models.md")]
    (tmp_path / "train.py").write_text(next(text for text in shown if "TfidfVectorizer" in text))
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, timeout=60)
    (tmp_path / "mood" / "model.py").write_text(next(text for text in shown if "class Mood" in text))
    (tmp_path / "mood" / "salver-model.toml").write_text(next(text for text in shown if '"model:Mood"' in text))
    exchange = next(text for text in shown if "/v2/models/mood/infer" in text)
    salver_says(capsys, served.home, "register", "mood", tmp_path / "mood")
    salver_says(capsys, served.home, "deploy", "mood", "--optional", "--wait")
    try:
        body = exchange.partition("-d '")[2].partition("'")[0]
        with urllib.request.urlopen(inference(served.http, "mood", body)) as page:
            assert page.read().decode() == exchange.splitlines()[-1]
    finally:
        salver_says(capsys, served.home, "undeploy", "mood")


WORDS = """
import numpy as np
import salver


class Words(salver.Model):
    inputs = (salver.TensorSpec("text", "BYTES", (-1,)),)
    outputs = (salver.TensorSpec("embedding", "FP32", (-1, 2)), salver.TensorSpec("tokens", "INT64", (-1,)))

    def predict(self, inputs):
        words = [text.split() for text in inputs["text"]]
        rows = [(len(found), max(map(len, found), default=0)) for found in words]
        return {"embedding": np.array(rows, np.float32), "tokens": np.array([len(found) for found in words])}
"""
KINDS = """
import numpy as np
import salver


class Kinds(salver.Model):
    inputs = (salver.TensorSpec("file", "BYTES", (-1,)),)
    outputs = (salver.TensorSpec("kind", "BYTES", (-1,)),)

    def predict(self, inputs):
        kinds = ["png" if file.startswith(b"\\x89PNG") else "unknown" for file in inputs["file"]]
        return {"kind": np.array(kinds, object)}
"""


def as_curl_would(url, words, folder):
    """Post what a command line of curl says, with another client: not every machine has curl."""
    options = argparse.ArgumentParser()
    for option in ("-H", "-F"):
        options.add_argument(option, action="append", default=[])
    for option in ("-d", "--data-binary"):
        options.add_argument(option, dest="data")
    options.add_argument("path")
    given = options.parse_args(words)
    body = (
        {"content": (folder / given.data[1:]).read_bytes() if given.data[:1] == "@" else given.data}
        if given.data
        else {}
    )
    if given.F:
        pairs = [field.split("=@") for field in given.F]
        body = {"files": [(name, (file, (folder / file).read_bytes())) for name, file in pairs]}
    headers = dict(header.split(": ", 1) for header in given.H)
    return httpx2.post(url + given.path, headers=headers, timeout=60, **body).text


def test_the_examples_of_the_page_on_more_protocols_answer_as_the_page_says(capsys, tmp_path, served):
    readme = [block.text for block in blocks(ROOT / "README.md")]
    codes = {"spread": next(text for text in readme if "class Spread" in text), "words": WORDS, "kinds": KINDS}
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "b.txt").write_text("hello")
    for name, code in codes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(code)
        (tmp_path / name / "salver-model.toml").write_text('kind = "embed"\n' if name == "words" else "")
        salver_says(capsys, served.home, "register", name, tmp_path / name)
        salver_says(capsys, served.home, "deploy", name, "--optional", "--wait")
    try:
        shown = "".join(block.text for block in blocks(ROOT / "docs" / "more-protocols.md"))
        exchanges = re.findall(r"\$ curl -s localhost:8080(.*)\n(.*)", shown)
        assert len(exchanges) == 6
        for words, answer in exchanges:
            assert as_curl_would(served.http, shlex.split(words), tmp_path) == answer
    finally:
        for name in codes:
            salver_says(capsys, served.home, "undeploy", name)


def test_an_ambiguous_directory_is_refused_as_the_page_on_models_says(tmp_path):
    shown = next(block.text for block in blocks(ROOT / "docs" / "models.md") if "could be" in block.text)
    (tmp_path / "forest").mkdir()
    for name in ("rf.joblib", "model.py"):
        (tmp_path / "forest" / name).write_text("never opened")
    # A process of its own: the server of this module logs to the same standard error from its threads.
    words = [sys.executable, "-m", "salver", "--home", tmp_path / "home", "register", "forest", "forest"]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, shown.partition("\n")[2])


def test_what_the_demo_says_to_try_next_works(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SALVER_HOME", str(tmp_path / "nowhere"))
    (develop, _), (load, _), (read, _) = runpy.run_path(str(EXAMPLES / "digits" / "demo.py"))["next_steps"]()
    assert (ROOT / read).is_file()
    with subprocess.Popen([*develop.split(), "--http", "0", "--json"], stdout=subprocess.PIPE) as process:
        try:
            url = json.loads(process.stdout.readline())["http"]
            words = load.replace("http://127.0.0.1:8080", url).split()
            brief = ("--duration", "0.2", "--warmup", "0", "--connections", "1", "--json")
            done = subprocess.run([*words, *brief], capture_output=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["failed"] == 0
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_the_first_class_of_the_readme_answers_as_the_readme_says(capsys, tmp_path):
    shown = blocks(ROOT / "README.md")
    (tmp_path / "spread.py").write_text(next(block.text for block in shown if "class Spread" in block.text))
    registered = salver_says(capsys, tmp_path / "home", "register", "spread", tmp_path / "spread.py")
    assert "output     spread  FP32 [any]" in registered

    exchange = next(block.text for block in shown if "/v2/models/spread/infer" in block.text)
    inputs = json.loads(exchange.partition("-d '")[2].partition("'")[0])["inputs"][0]
    outputs = json.loads(exchange.splitlines()[-1])["outputs"]
    code = (
        "import json, sys, numpy as np, spread\n"
        "x = np.array(json.loads(sys.argv[1]), np.float32)\n"
        "print(json.dumps({name: array.tolist() for name, array in spread.Spread().predict({'x': x}).items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(inputs["data"])],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert json.loads(done.stdout) == {output["name"]: output["data"] for output in outputs}
