"""Nothing that could run code is ever made out of bytes, except in a worker."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import salver

SOURCE = Path(salver.__file__).parent
ADAPTERS = {
    "runtime/formats/sklearn.py",
    "runtime/formats/torch.py",
    "evaluation/service/batch_paths.py",
    "imports/mlflow.py",
}
"""The files that load what somebody has vouched for, in a worker; the last reads YAML, in the safe way only."""
EXECUTING = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "yaml", "jsonpickle"}


def imports(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports anywhere in it, by statement or by name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.args[0] if node.args else None, ast.Constant):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in {"import_module", "__import__"}:
                found.add(str(node.args[0].value).partition(".")[0])
    return found


def unsafe(tree: ast.AST) -> list[str]:
    """Calls that unpickle without importing a pickle."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allowed = {each.arg: ast.unparse(each.value) for each in node.keywords}.get("allow_pickle", "False")
            if name in {"np.load", "numpy.load"} and "allow_pickle" not in {each.arg for each in node.keywords}:
                found.append(f"{name} without a word about pickles")
            if name.startswith("yaml.") and name != "yaml.safe_load":
                found.append(ast.unparse(node))
            if allowed != "False" or name in {"np.fromregex", "pd.read_pickle", "eval", "exec"}:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_but_the_adapters_can_make_code_out_of_bytes(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if str(path.relative_to(SOURCE)) not in ADAPTERS:
        assert imports(tree) & EXECUTING == set()
    assert unsafe(tree) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import os, _pickle as p",
        "import importlib\nimportlib.import_module('dill.detect')",
    ],
)
def test_the_search_finds_an_import_wherever_it_hides(text: str) -> None:
    assert imports(ast.parse(text)) & EXECUTING


@pytest.mark.parametrize(
    "text", ["np.load(f)", "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=x)", "eval(x)", "yaml.load(f)"]
)
def test_the_search_finds_a_call_that_unpickles(text: str) -> None:
    assert unsafe(ast.parse(text))
    assert unsafe(ast.parse("np.load(f, allow_pickle=False)")) == []


TRY = """
import io, pickle, sys
import numpy as np
from salver.security.unpickling import UnpicklingError, forbid_unpickling

class Canary:
    def __reduce__(self):
        return (print, ("unpickled",))

archive = io.BytesIO()
np.save(archive, np.array([Canary()], dtype=object), allow_pickle=True)
tries = {
    "c": lambda: pickle.loads(pickle.dumps(Canary())),
    "python": lambda: pickle._Unpickler(io.BytesIO(pickle.dumps(Canary()))).load(),
    "numpy": lambda: np.load(io.BytesIO(archive.getvalue()), allow_pickle=True),
}
tries["c"]()
forbid_unpickling()
for name, attempt in tries.items():
    try:
        attempt()
    except UnpicklingError as error:
        print(name, error)
print(pickle.loads(pickle.dumps({"plain": [1, 2.0, b"3"]})))
"""


def test_a_process_that_has_sworn_off_cannot_unpickle_by_any_way() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.splitlines()
    assert said[0] == "unpickled"  # without the word it would have
    assert [line.split()[0] for line in said[1:4]] == ["c", "python", "numpy"]
    assert all("unpickling is not done in this process" in line for line in said[1:4])
    assert said[4] == "{'plain': [1, 2.0, b'3']}"


QUIET = """
import sys
events = []
armed = False
def hook(event, arguments):
    if armed:
        events.append(event)
sys.addaudithook(hook)
from salver.protocol.codecs.oip_request import decode_json
import numpy as np
body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
decode_json(body, 100)
armed = True
for _ in range(10):
    tensor = decode_json(body, 100).inputs["x"]
    np.frombuffer(tensor.data, np.float32).tobytes()
armed = False
print(events)
"""


def test_reading_a_request_raises_no_audited_event() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
