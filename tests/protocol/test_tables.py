from __future__ import annotations

import ast
import inspect
import itertools

import msgspec
import pytest

from salver.protocol import tables
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import (
    DeploymentSpec,
    FileEntry,
    Nonfinite,
    Placement,
    RuntimeOptions,
    Tables,
    TokenRecord,
    Validate,
    VersionManifest,
)
from salver.testing import make_manifest, make_spec

FULL = Tables(
    revision=7,
    versions=(
        VersionManifest(
            "digits",
            "1.0.0-rc.1+b",
            3,
            "ab" * 32,
            "python",
            (FileEntry("a/b.py", "cd" * 32, 10),),
            Signature(
                (TensorSpec("x", "FP32", (-1, 2), optional=True),),
                (TensorSpec("y", "BYTES", (-1,), labels=("ü", '"')),),
            ),
            kind="embed",
            preprocess="m:f",
            postprocess="m:g",
            cost="x",
            idempotent=False,
            trusts_code=True,
            profile=Profile((InputProfile("x", 2, (FeatureProfile(-1.5, 1e300, 0.1, 0.2, 1),)),)),
            metadata={"by": "ü"},
        ),
    ),
    deployments=(
        DeploymentSpec(
            "e",
            "digits",
            "1.0.0-rc.1+b",
            replicas=2,
            placement=Placement.PROCESS,
            validate=Validate.STRICT,
            nonfinite=Nonfinite.NULL,
            runtime=RuntimeOptions(threads=4, pin=(0, 1)),
        ),
    ),
    tokens=(TokenRecord("i", "n", "admin", "t", "h", 1.5),),
)


@pytest.mark.parametrize("tables", [Tables(), FULL], ids=["empty", "full"])
def test_tables_come_back_from_json(tables: Tables) -> None:
    assert msgspec.json.decode(msgspec.json.encode(tables), type=Tables) == tables


def test_unknown_settings_of_a_deployment_are_refused() -> None:
    text = b'{"endpoint":"e","model":"m","version":"1.0.0","replica":2}'
    with pytest.raises(msgspec.ValidationError, match="replica"):
        msgspec.json.decode(text, type=DeploymentSpec)


def test_a_deployment_finds_its_version_by_model_and_number() -> None:
    one, two = make_manifest(), make_manifest(version="2.0.0")
    tables = Tables(versions=(one, two))
    assert tables.version_of(make_spec(version="2.0.0")) is two
    for missing in (make_spec(version="3.0.0"), make_spec(model="other")):
        with pytest.raises(KeyError):
            tables.version_of(missing)


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({}, False),
        ({"format": "python"}, True),
        ({"trusts_code": True}, True),
        ({"preprocess": "m:f"}, True),
        ({"postprocess": "m:f"}, True),
        ({"format": "sklearn"}, False),
    ],
)
def test_user_code_is_python_pickles_and_processing(changes, runs: bool) -> None:
    assert make_manifest(**changes).runs_user_code is runs


@pytest.mark.parametrize("name", ["DeploymentSpec", "RuntimeOptions"])
def test_every_setting_says_what_it_is(name: str) -> None:
    (found,) = [
        node
        for node in ast.parse(inspect.getsource(tables)).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    silent = [
        field.target.id
        for field, behind in itertools.pairwise([*found.body, None])
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and not (isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant))
    ]
    assert silent == []
