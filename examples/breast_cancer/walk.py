"""The whole way of five versions: register, evaluate, compare, approve, promote, deploy, predict, and who was it?

    python examples/breast_cancer/walk.py

Everything happens in a throw-away directory and on free ports. `--keep FOLDER` keeps the models and the home there.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import train  # noqa: E402 - it stands beside this file
from walking import Walk, minted  # noqa: E402 - it stands beside this example

FILES = ("suite.toml", "service.toml", "leakage.toml", "cases.toml", "policy.toml")
SUITE, SERVICE, LEAKAGE, CASES, POLICY = FILES
DATA = ("--data", "cancer.csv")


def main(folder: Path) -> None:
    walk = Walk(folder, folder / "home")
    walk.step("Five models of one question, and a policy with gates")
    train.main(folder)
    for name in FILES:
        shutil.copyfile(HERE / name, folder / name)
    walk.salver("register", "cancer", "logistic.onnx", "--description", "logistic.toml", "--profile", "train.npy")
    walk.salver("policy", "set", POLICY)
    approver = minted(walk, "ben", "approver")
    with walk.serving():
        first(walk, approver)
        second(walk, approver)
        there_and_back(walk)
        not_further(walk)
        incident(walk)
        looking_back(walk)
    walk.done()


def first(walk: Walk, approver: str) -> None:
    walk.step("A logistic regression goes all the way, once somebody else has agreed")
    walk.salver("evaluate", "cancer@1.0.0", "--suite", SUITE, *DATA, "--record")
    walk.salver("evaluate", "cancer@1.0.0", "--suite", SERVICE, *DATA, "--record")
    walk.salver("promote", "cancer@1.0.0", "validation")
    walk.salver("promote", "cancer@1.0.0", "staging")
    walk.salver("promote", "cancer@1.0.0", "production", ends=2)
    walk.salver("deploy", "cancer@1.0.0", ends=3)
    walk.salver("approve", "cancer@1.0.0", "production", "--why", "looked at the report", token=approver)
    walk.salver("promote", "cancer@1.0.0", "production", why="the first one")
    ask(walk, "1.0.0")


def second(walk: Walk, approver: str) -> None:
    walk.step("Gradient boosting: compared with what is in production, and no worse")
    walk.salver("register", "cancer", "boosted.onnx", "--description", "boosted.toml", "--profile", "train.npy")
    walk.salver("compare", "cancer@1.0.1", "cancer@1.0.0", "--suite", SUITE, *DATA, "--margin", 0.05, ends=None)
    walk.salver("evaluate", "cancer@1.0.1", "--suite", SUITE, *DATA, "--record")
    walk.salver("evaluate", "cancer@1.0.1", "--suite", SERVICE, *DATA, "--record")
    walk.salver("promote", "cancer@1.0.1", "validation")
    walk.salver("promote", "cancer@1.0.1", "staging")
    walk.salver("approve", "cancer@1.0.1", "production", token=approver)
    walk.salver("promote", "cancer@1.0.1", "production", why="no worse, and the board wants to learn")
    ask(walk, "1.0.1")


def there_and_back(walk: Walk) -> None:
    walk.step("Back to the first, by the decision that let it in, and to the second again")
    walk.salver("promote", "cancer@1.0.0", "production", "--deploy", why="the board found 1.0.1 slow")
    walk.salver("promote", "cancer@1.0.1", "production", "--deploy", why="it was the network")


def not_further(walk: Walk) -> None:
    walk.step("A worse one, and one that was trained on the rows that judge it, come to no gate")
    for name, version in (("worse", "1.0.2"), ("leaky", "1.0.3")):
        walk.salver("register", "cancer", f"{name}.onnx", "--description", f"{name}.toml", "--profile", "train.npy")
        walk.salver("evaluate", f"cancer@{version}", "--suite", SUITE, *DATA, "--record", ends=1)
        walk.salver("promote", f"cancer@{version}", "validation")
        walk.salver("promote", f"cancer@{version}", "staging", ends=1)
    walk.step("One that reads a column which is known only with the answer")
    walk.salver("register", "cancer", "with_code.onnx", "--description", "with_code.toml")
    data = ("--data", "cancer_with_code.csv")
    walk.salver("evaluate", "cancer@2.0.0", "--suite", LEAKAGE, *data, "--record", ends=1)


def incident(walk: Walk) -> None:
    walk.step("Incident 12: a tumour was called benign. No later version may")
    rows = np.loadtxt(walk.folder / "cancer.csv", delimiter=",", skiprows=1)
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32", "data": rows[0, :30].tolist()}
    (walk.folder / "incident-12.json").write_text(json.dumps({"inputs": [tensor]}))
    walk.salver(
        "case", "add", "cancer", "--input", "incident-12.json", "--expect", "label=1", "--source", "incident 12"
    )
    walk.salver("evaluate", "cancer@1.0.2", "--suite", CASES, *DATA, ends=1)
    walk.salver("evaluate", "cancer@1.0.1", "--suite", CASES, *DATA)


def looking_back(walk: Walk) -> None:
    at = {"1.0.0": "staging", "1.0.1": "production", "1.0.2": "validation", "1.0.3": "validation"}
    walk.stand("cancer", at | {"2.0.0": "development"})
    walk.step("Who was it?")
    walk.salver("stage", "cancer")
    walk.salver("evaluations", "cancer")
    walk.salver("decisions", "cancer@1.0.1")
    walk.salver("history", "cancer")
    walk.salver("history", "cancer", "--at", "now")
    walk.salver("audit", "head")
    walk.salver("audit", "verify")


def ask(walk: Walk, version: str) -> None:
    walk.salver("deploy", f"cancer@{version}", "--wait")
    row = np.load(walk.folder / "train.npy")[:1].astype(np.float32)
    np.save(walk.folder / "row.npy", row)
    walk.salver("predict", "cancer", "--input", "row.npy")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="The whole way of five versions.")
    arguments.add_argument("--keep", type=Path, help="keep everything in this folder")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="salver-cancer-") as passing:
        main((given.keep or Path(passing)).absolute())
