"""What holds for the whole room: its examples, its imports, its words for what is missing."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import salver.stats
from salver.protocol import verdict
from salver.protocol.errors import SalverError
from salver.stats import libraries

MODULES = sorted(f"salver.stats.{one.name}" for one in pkgutil.iter_modules(salver.stats.__path__))


@pytest.mark.parametrize("name", [*MODULES, verdict.__name__])
def test_examples_print_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_no_module_imports_a_heavy_library_before_it_is_asked_for_a_number() -> None:
    code = f"import sys\nfor name in {MODULES!r}: __import__(name)\n"
    code += "print([name for name in ('scipy', 'sklearn', 'statsmodels', 'pandas') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("library", "module", "package"),
    [
        (libraries.scipy_special, "scipy.special", "scipy"),
        (libraries.scipy_stats, "scipy.stats", "scipy"),
        (libraries.sklearn_metrics, "sklearn.metrics", "scikit-learn"),
    ],
)
def test_a_missing_library_names_the_extra(library, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SalverError, match=rf"needs {package}, .* pip install 'salver\[evaluation\]'") as refused:
        library()
    assert refused.value.code == "UNSUPPORTED"
