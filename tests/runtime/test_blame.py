from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from salver.protocol.tables import RuntimeOptions
from salver.runtime import blame
from salver.runtime.batch import problem_of
from salver.runtime.loader import load_version


def test_a_problem_tells_the_line_of_the_artifact_and_no_path_of_this_machine(tmp_path, monkeypatch) -> None:
    inside = tmp_path / "parts"
    inside.mkdir()
    (inside / "table.py").write_text("def pick(rows, key):\n    return rows[key]\n")
    (tmp_path / "model_with_a_fault.py").write_text(
        "import json\nfrom parts.table import pick\n\n"
        "def predict():\n    return pick({}, 'k')\n\ndef read():\n    json.loads('{')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = importlib.import_module("model_with_a_fault")
    monkeypatch.setattr(blame, "_directories", set())
    assert _said(model.predict) == "KeyError: 'k'"  # nobody said whose code this is
    blame.code_comes_from(tmp_path)
    assert _said(model.predict) == "KeyError: 'k' (parts/table.py:2 in pick)"
    # The library's own frames are behind the last line that can be mended.
    assert _said(model.read).endswith("(model_with_a_fault.py:8 in read)")
    assert str(tmp_path) not in _said(model.read) + _said(model.predict)


def test_a_loaded_version_is_blamed_by_the_line_of_its_own_file(store, users_code) -> None:
    source = """
import salver
class Faulty(salver.Model):
    def predict(self, inputs):
        return {"y": inputs["k"]}
"""
    manifest = store.version({"artifact_faulty.py": source})
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert _said(lambda: loaded.run({"x": np.zeros((1, 2), np.float32)})) == (
        "KeyError: 'k' (artifact_faulty.py:5 in predict)"
    )
    loaded.unload()
    del sys.modules["artifact_faulty"]


def test_a_long_problem_keeps_its_place(tmp_path, monkeypatch) -> None:
    (tmp_path / "model_that_talks.py").write_text("def predict():\n    raise ValueError('x' * 10**6)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(blame, "_directories", set())
    blame.code_comes_from(tmp_path)
    said = _said(importlib.import_module("model_that_talks").predict)
    assert len(said) == 2000
    assert said.endswith("xx (model_that_talks.py:2 in predict)")


def _said(fails):
    try:
        fails()
    except Exception as error:
        return problem_of(error)
    pytest.fail("it did not raise")
