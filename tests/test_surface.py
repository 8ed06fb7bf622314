"""What the package offers is there, and is written about."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import salver
from salver.config import ServerSettings
from salver.gateway.limits import Limits
from salver.protocol.errors import CATALOGUE
from salver.protocol.tables import DeploymentSpec, RuntimeOptions

ROOT = Path(__file__).parent.parent
SOURCE = Path(salver.__file__).parent
NOT_SET_BY_PEOPLE = {"endpoint", "model", "version", "generation", "runtime"}
"""Fields of a deployment that say what is deployed, not how."""


def test_everything_in_all_can_be_had() -> None:
    assert set(salver.__all__) >= {"Client", "Model", "Server", "TensorSpec", "__version__"}
    for name in salver.__all__:
        assert getattr(salver, name) is not None
    assert set(dir(salver)) == set(salver.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(salver, "nothing")  # noqa: B009 - that is what is tested


def test_every_module_says_what_it_is_for() -> None:
    silent = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree) and tree.body:
            silent.append(str(path.relative_to(SOURCE)))
    assert silent == []


def test_every_name_a_module_exports_exists() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "__main__.py" or path.match("formats/torch.py"):  # PyTorch is in the engines' environment
            continue
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}.{name}"


def _documentation() -> str:
    return "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def _commands() -> list[str]:
    from salver.cli.app import app

    groups = [
        f"{group.name} {command.name}"
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    ]
    return [command.name for command in app.registered_commands] + groups


def test_every_command_is_documented() -> None:
    text = _documentation()
    assert [name for name in _commands() if f"salver {name}" not in text] == []


def test_every_setting_is_documented() -> None:
    text = _documentation()
    names = {
        *ServerSettings.__struct_fields__,
        *Limits.__struct_fields__,
        *set(DeploymentSpec.__struct_fields__) - NOT_SET_BY_PEOPLE,
        *RuntimeOptions.__struct_fields__,
    }
    assert sorted(name for name in names if not re.search(rf"(?<!\w){name}(?!\w)", text)) == []


def test_every_error_code_is_documented() -> None:
    text = _documentation()
    assert sorted(code for code in CATALOGUE if f"`{code}`" not in text) == []
