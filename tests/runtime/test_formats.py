from __future__ import annotations

import sys

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS, OPTIMIZATIONS, FormatFacts
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.formats import format_named
from salver.runtime.loader import load_version


@pytest.mark.parametrize("name", [pytest.param("torch", marks=pytest.mark.engines), *sorted(set(FORMATS) - {"torch"})])
def test_a_row_leads_to_the_format_of_its_name(name: str) -> None:
    assert FORMATS[name].name == format_named(name).name == name


@pytest.mark.parametrize(
    ("name", "module"), [("sklearn", "skops"), ("xgboost", "xgboost"), ("lightgbm", "lightgbm"), ("torch", "torch")]
)
def test_a_format_whose_library_is_absent_says_which_extra_has_it(monkeypatch, name, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.io", raising=False)
    monkeypatch.delitem(sys.modules, f"salver.runtime.formats.{name}", raising=False)
    with pytest.raises(SalverError, match=rf"pip install 'salver\[{FORMATS[name].extra}\]'") as raised:
        format_named(name)
    assert raised.value.code == "UNSUPPORTED"


def test_no_two_formats_claim_a_suffix() -> None:
    suffixes = [suffix for facts in FORMATS.values() for suffix in facts.suffixes]
    assert len(set(suffixes)) == len(suffixes)


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(SalverError, match="use one of onnx, sklearn, python") as raised:
        format_named("cobol")
    assert raised.value.code == "INVALID_SETTING"


def test_every_level_of_optimisation_is_one_of_onnx_runtime() -> None:
    from salver.runtime.formats.onnx import _LEVELS

    assert tuple(_LEVELS) == OPTIMIZATIONS


TABLE_LOOKUP = """
import numpy as np
from salver.protocol.signature import Signature, TensorSpec

class Lookup:
    name = "lookup"
    def main_file(self, directory): return next(directory.glob("*.lookup"), None)
    def code_in(self, source): return ""
    def signature(self, source, declaration):
        return Signature((TensorSpec("i", "INT64", (-1,)),), (TensorSpec("value", "FP64", (-1,)),))
    def load(self, source, declaration, options): return Loaded(np.array(source.main.read_text().split(), float))

class Loaded:
    def __init__(self, table): self.table = table
    def run(self, inputs): return {"value": self.table[inputs["i"]]}
    def unload(self): pass
"""


def test_a_new_format_is_one_file_and_one_row(store, tmp_path, monkeypatch) -> None:
    (tmp_path / "lookup_format.py").write_text(TABLE_LOOKUP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "lookup", FormatFacts("lookup", "lookup_format:Lookup", (".lookup",), "a table"))
    path = tmp_path / "prices.lookup"
    path.write_text("1.5 2.5 3.5")
    artifact = read_artifact(path)
    assert (artifact.format, artifact.executes_code) == ("lookup", False)
    manifest = store.version(
        {path.name: path.read_text()}, format=artifact.format, signature=artifact.signature, trusts_code=False
    )
    assert not manifest.runs_user_code
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert loaded.run({"i": np.array([2, 0])})["value"].tolist() == [3.5, 1.5]
    loaded.unload()
    del sys.modules["lookup_format"]
