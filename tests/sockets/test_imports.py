"""What the processes of a server import, by their own account: an audit hook that each of them is started with."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Tree

HEAVY = {"sqlalchemy", "alembic", "scipy", "pandas", "sklearn", "matplotlib", "psycopg", "starlette", "uvicorn"}
ROOMS = {"salver.registry", "salver.evaluation", "salver.cards"}
HOOK = """
import os, sys

def note(event, given, folder={folder!r}):
    if event == "import":
        with open(os.path.join(folder, str(os.getpid())), "a") as file:
            print(given[0], file=file)

sys.addaudithook(note)
"""


def test_of_all_processes_only_the_controller_imports_what_the_registry_needs(
    tree: Tree, models, tmp_path: Path
) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    hook, noted = tmp_path / "hook", tmp_path / "noted"
    hook.mkdir()
    noted.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK.format(folder=str(noted)))
    tree.start(PYTHONPATH=str(hook))
    assert tree.predict("double", [1, 2]) == [2, 4]
    pids = tree.ready["pids"]

    def imported(pid: int) -> set[str]:
        modules = (noted / str(pid)).read_text().splitlines()
        return {name for module in modules for name in (module.partition(".")[0], ".".join(module.split(".")[:2]))}

    assert imported(pids["controller"]) >= {"sqlalchemy", "salver.registry"}
    for pid in (tree.process.pid, *pids["servers"]):
        found = imported(pid)
        assert "salver.processes" in found, "the hook has seen nothing"
        assert not found & (HEAVY | ROOMS)
    assert not imported(pids["servers"][0]) & {"salver.control"}
