"""Which files of an artifact shape what goes into a model or comes out of it: anything but weights and papers.

A manifest says which files there are, the format, and whether code of its own runs before or behind the weights. Files
named like a tokenizer, a vocabulary or labels always count: where no code here reads them, clients do. Others count
where code could read them: texts, and learned numbers too where the weights are in a file of their format. External
data of ONNX goes by any name, so what is none of these is weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Final

from salver.protocol.formats import FORMATS, is_always_code
from salver.protocol.tables import VersionManifest

__all__ = ["shaping_files"]

_NAMED: Final = re.compile(
    r"tokeni[sz]er|vocab|merges|sentencepiece|spiece|special_tokens|added_tokens|stop_?words|preprocess|postprocess"
    r"|scaler|vectori[sz]er|imputer|normali[sz]er|labels?\b|index_to_name"
)
_PAPERS: Final = re.compile(
    r"(readme|licen[cs]e|notice|changelog|authors|citation|model_?card|requirements|conda|python_env|input_example"
    r"|serving_input|manifest\.json|salver-model\.toml).*|.*suite.*\.toml|.*\.(md|rst|html|pdf)"
)
_WEIGHTS: Final = re.compile(r"(pytorch_)?model|weights?|checkpoint|params")
_TEXTS: Final = frozenset(
    (
        *(".json", ".jsonl", ".txt", ".csv", ".tsv", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".xml"),
        *(".vocab", ".bpe", ".spm", ".model", ".dic", ".dict"),
    )
)
_LEARNED: Final = frozenset((".npy", ".npz", ".pkl", ".pickle", ".joblib", ".skops", ".parquet"))


def shaping_files(manifest: VersionManifest) -> dict[str, str]:
    """The digests of those files, by their paths. Code is not among them."""
    paths = [PurePosixPath(file.path) for file in manifest.files]
    runs_code = is_always_code(manifest.format) or bool(manifest.preprocess or manifest.postprocess)
    counting: Collection[str] = ()
    if runs_code:
        counting = _TEXTS if is_always_code(manifest.format) else _TEXTS | _LEARNED
    own = _weights(manifest.format, paths)
    return {
        file.path: file.sha256
        for file, path in zip(manifest.files, paths, strict=True)
        if path not in own and _shapes(path, counting)
    }


def _shapes(path: PurePosixPath, counting: Collection[str]) -> bool:
    name = path.name.lower()
    if name.endswith(".py") or _PAPERS.fullmatch(name):
        return False
    if _NAMED.search(name):
        return True
    return path.suffix.lower() in counting and not _WEIGHTS.fullmatch(path.stem.lower())


def _weights(format: str, paths: Collection[PurePosixPath]) -> set[PurePosixPath]:
    """The file that the format loads, or those that it may be: at the top, by its suffix."""
    facts = FORMATS.get(format)
    if facts is None or is_always_code(format):
        return set()
    found = {path for path in paths if len(path.parts) == 1 and path.suffix.lower() in facts.suffixes}
    own = {path for path in found if path.suffix.lower() not in facts.shared_suffixes}
    # Of a suffix that much else has: the one called `model`, else those with no name of something else.
    return own or {path for path in found if path.stem == "model"} or _unnamed(found)


def _unnamed(found: set[PurePosixPath]) -> set[PurePosixPath]:
    names = {
        path for path in found if not _NAMED.search(path.name.lower()) and not _PAPERS.fullmatch(path.name.lower())
    }
    return names or found
