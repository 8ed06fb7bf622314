"""Which versions the files of a repository make. Pure: what is found depends on the list of files alone.

MODEL/config.pbtxt   MODEL/1/model.onnx                  Triton; the configuration may be missing
MODEL/1/model.savedmodel/saved_model.pb                  Triton with TensorFlow
MODEL/1/saved_model.pb   MODEL/1/variables/...           TensorFlow Serving, all models
1/saved_model.pb                                         TensorFlow Serving, the base path of one model
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from salver.watching.sources import SourceFile

__all__ = ["FoundVersion", "found_versions"]

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")
"""As both servers have them: 0 and leading zeros are no versions there."""


class FoundVersion(msgspec.Struct, frozen=True):
    """A version in a repository: its number there, and its files by their paths in it."""

    model: str
    number: int
    files: dict[str, SourceFile]
    root: str
    """The path of its artifact in the repository."""

    @property
    def path(self) -> str:
        """MODEL/NUMBER."""
        return f"{self.model}/{self.number}"

    @property
    def changed_s(self) -> float:
        """When anything of it was last changed."""
        return max(file.changed_s for file in self.files.values())

    @property
    def stamp(self) -> frozenset[tuple[str, str]]:
        """Another one when anything of it is another."""
        return frozenset((path, file.stamp) for path, file in self.files.items())


def found_versions(files: Iterable[SourceFile], base: str) -> list[FoundVersion]:
    """The versions, by model and number. `base` is what a model is called whose versions lie at the top."""
    found: dict[tuple[str, int], dict[str, SourceFile]] = {}
    for file in files:
        parts = file.path.split("/")
        if len(parts) > 1 and _NUMBER.fullmatch(parts[0]):
            key, rest = (base, int(parts[0])), parts[1:]
        elif len(parts) > 2 and _NUMBER.fullmatch(parts[1]):
            key, rest = (parts[0], int(parts[1])), parts[2:]
        else:
            continue
        found.setdefault(key, {})["/".join(rest)] = file
    return [_version(model, number, found[model, number]) for model, number in sorted(found)]


def _version(model: str, number: int, files: dict[str, SourceFile]) -> FoundVersion:
    """A directory that is alone in that of the version, such as model.savedmodel, is the artifact."""
    tops = {path.partition("/")[0] for path in files}
    folder = ""
    if len(tops) == 1 and all("/" in path for path in files):
        (folder,) = tops
        files = {path.partition("/")[2]: file for path, file in files.items()}
    return FoundVersion(model, number, files, folder)
