"""Reading an artifact from disk before it is registered: its files, format and signature.

Nothing here executes an artifact's code in the calling process: where the signature cannot be
had otherwise, a child process is asked for it (`salver.runtime.describe`).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS, MAX_FILES, is_always_code
from salver.protocol.signature import Signature
from salver.runtime.asking import ask_child
from salver.runtime.child import MEMORY_BYTES, Ended, Ending
from salver.runtime.declaration import DECLARATION_FILE, Declaration, check_signature, read_declaration
from salver.runtime.formats import Format, Source, format_named
from salver.runtime.recognition import may_be, require_content

__all__ = [
    "MOST_DESCRIBED_BYTES",
    "Artifact",
    "DescribeOrder",
    "Recognised",
    "artifact_files",
    "describe_in_child",
    "memory_to_read",
    "read_artifact",
    "recognise",
    "source_of",
]

MOST_DESCRIBED_BYTES: Final = 16 * 2**20
_DESCRIBE_TIMEOUT_S: Final = 120.0
_TIMES_ITS_SIZE: Final = 4
_IGNORED = {"__pycache__", ".git", ".DS_Store"}


class DescribeOrder(msgspec.Struct, frozen=True):
    """What `salver.runtime.describe` is asked: the signature of which artifact, read as which format."""

    path: str
    format: str


@dataclass(frozen=True)
class Recognised:
    """An artifact whose format is known and may be loaded; its signature, which takes longer, has not been read yet."""

    path: Path
    files: dict[str, Path]
    """Each relative path inside the artifact, and the file that holds it now."""
    format: Format
    source: Source
    declaration: Declaration
    code: str
    """What executes code when it is loaded; empty where nothing does."""

    @property
    def runs_code(self) -> str:
        """What code of somebody's runs when the artifact is read or served; empty where none does."""
        processing = self.declaration.preprocess or self.declaration.postprocess
        return processing or (repr(self.source.main.name) if self.code or is_always_code(self.format.name) else "")

    def described(self) -> Artifact:
        """With its signature. Raises INVALID_ARTIFACT when it cannot be loaded."""
        if self.runs_code or FORMATS[self.format.name].reads_aside:
            signature = describe_in_child(self.path, self.format.name)
        else:
            signature = self.format.signature(self.source, self.declaration)
        return Artifact(self.format.name, self.files, check_signature(signature), self.declaration, bool(self.code))


class Artifact(msgspec.Struct, frozen=True):
    """What a path offers for registration.

    `files` maps each relative path inside the artifact to the file that holds it now.
    """

    format: str
    files: dict[str, Path]
    signature: Signature
    declaration: Declaration
    executes_code: bool


def read_artifact(path: Path, *, format: str | None = None, trust_code: bool = False) -> Artifact:
    """The artifact at `path`, a file or a directory. Raises what `recognise` and `Recognised.described` raise."""
    return recognise(path, format=format, trust_code=trust_code).described()


def recognise(path: Path, *, format: str | None = None, trust_code: bool = False) -> Recognised:
    """Find out what the artifact at `path` is, without loading it.

    Raises INVALID_ARTIFACT when it cannot be understood or could be of several formats,
    REFUSED_BY_POLICY when loading it can execute code (a pickle, an untrusted skops file) and
    `trust_code` is false. Python classes and processing functions are code by nature and need no
    such word: they only ever run in a worker.
    """
    files = artifact_files(path)
    directory = path if path.is_dir() else path.parent
    declaration = read_declaration(path) if path.is_dir() else Declaration()
    named = format or declaration.format or ("python" if declaration.entry else "")
    chosen, source = _choose_format(path, directory, named, declaration)
    _require_sense(declaration, chosen)
    require_content(chosen.name, source.main)
    code = chosen.code_in(source)
    if code and not is_always_code(chosen.name) and not trust_code:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"loading {source.main.name!r} can execute code that came with it: {code}",
            "if you made it yourself, add --trust-code; it then runs in a worker process only",
        )
    return Recognised(path, files, chosen, source, declaration, code)


def _require_sense(declaration: Declaration, chosen: Format) -> None:
    """Refuse what `salver.runtime.loader` would refuse to load."""
    problem = ""
    if declaration.format not in ("", chosen.name):
        problem = f"format is {declaration.format!r}, and the artifact is to be registered as {chosen.name!r}"
    elif declaration.entry and not is_always_code(chosen.name):
        problem = f"entry is {declaration.entry!r}, and format {chosen.name!r} runs no class of yours"
    elif declaration.states and not FORMATS[chosen.name].has_states:
        problem = f"there are states, and format {chosen.name!r} has no tensors for them"
    elif declaration.kind == "sequence" and not declaration.states and not is_always_code(chosen.name):
        problem = 'kind is "sequence", and nothing says what is kept: [[states]], or a class with step()'
    elif declaration.streams and not is_always_code(chosen.name):
        problem = f"streams is true, and format {chosen.name!r} runs no class of yours"
    if problem:
        raise SalverError("INVALID_ARTIFACT", f"{DECLARATION_FILE}: {problem}", "correct the file, or leave that out")


def source_of(path: Path, format: Format, declaration: Declaration) -> Source:
    """The source that `format` loads from a file or directory; raises INVALID_ARTIFACT if it recognises none.

    Among several files that it might load, a declared `entry` tells which.
    """
    main = format.main_file(path) if path.is_dir() else path
    if main is None and declaration.entry:
        module, _, _ = declaration.entry.partition(":")
        main = path / f"{module.replace('.', '/')}.py"
    if main is None:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{path.name!r} holds no file, or several, that format {format.name} would load",
            "keep one model file in the directory, named model.* if in doubt",
        )
    return Source(path, main) if path.is_dir() else Source(path.parent, main, alone=True)


def describe_in_child(path: Path, format: str) -> Signature:
    """Ask a child process for the signature of an artifact whose code must not run here."""
    found = ask_child(
        "salver.runtime.describe",
        DescribeOrder(str(path.absolute()), format),
        Signature,
        limit_s=_DESCRIBE_TIMEOUT_S,
        answer_bytes=MOST_DESCRIBED_BYTES,
        directory=Path(),
        memory_bytes=memory_to_read(path),
    )
    if not isinstance(found, Ended):
        return found
    name = path.resolve().name
    if found.ending is Ending.KILLED:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{name!r} cannot be read: the child process that did it {found.how}",
            "the file may be damaged; save the model anew",
        )
    raise SalverError("INVALID_ARTIFACT", f"{name!r} cannot be loaded: the child process that did it {found.why}")


def memory_to_read(path: Path) -> int:
    """What a process may take that reads the artifact at `path`: a multiple of a large one."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return MEMORY_BYTES + _TIMES_ITS_SIZE * sum(file.stat().st_size for file in files if file.is_file())


def artifact_files(path: Path) -> dict[str, Path]:
    """The files of an artifact by their paths in it; INVALID_ARTIFACT for links, devices and nothing at all."""
    if not path.exists():
        raise SalverError("INVALID_ARTIFACT", f"there is no file or directory {str(path)!r}", "check the path")
    if path.is_file():
        return {path.name: path}
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(path, onerror=_refuse_unreadable):
        folders[:] = sorted(set(folders) - _IGNORED)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*links, *sorted(set(names) - _IGNORED)):
            file = Path(folder, name)
            if not stat.S_ISREG(file.lstat().st_mode):
                raise SalverError(
                    "INVALID_ARTIFACT",
                    f"{file.relative_to(path).as_posix()!r} is no regular file",
                    "copy what a link points to into the artifact",
                )
            found[file.relative_to(path).as_posix()] = file
            if len(found) > MAX_FILES:
                raise SalverError("INVALID_ARTIFACT", f"the artifact has more than {MAX_FILES} files")
    if not found:
        raise SalverError("INVALID_ARTIFACT", f"the directory {path.name!r} is empty")
    return found


def _refuse_unreadable(error: OSError) -> None:
    raise SalverError("INVALID_ARTIFACT", f"a directory of the artifact cannot be read: {error.strerror}")


def _choose_format(path: Path, directory: Path, named: str, declaration: Declaration) -> tuple[Format, Source]:
    if named:
        chosen = format_named(named)
        return chosen, source_of(path, chosen, declaration)
    fitting = _fitting_formats([path] if path.is_file() else sorted(directory.iterdir()), declaration)
    if len(fitting) == 1:
        chosen = format_named(next(iter(fitting)))
        return chosen, source_of(path, chosen, declaration)
    if fitting:
        could_be = " or ".join(f"{name} ({file})" for name, file in fitting.items())
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{path.resolve().name!r} could be {could_be}",
            f'pass --format, or say format = "{list(fitting)[-1]}" in its {DECLARATION_FILE}',
        )
    raise SalverError(
        "INVALID_ARTIFACT",
        f"no format recognises {path.resolve().name!r}",
        f"pass --format ({', '.join(FORMATS)}) or name it in {DECLARATION_FILE}",
    )


def _fitting_formats(files: list[Path], declaration: Declaration) -> dict[str, str]:
    """Each format with a file of its suffix, and the first such file; opened are those that others name so as well."""
    fitting = {}
    for name in FORMATS:
        names = [file.name for file in files if may_be(name, file)]
        if names:
            fitting[name] = "model.py" if "model.py" in names else names[0]
    processing = {setting.partition(":")[0] for setting in (declaration.preprocess, declaration.postprocess) if setting}
    # Python files beside a model may be there for its processing functions; a model.py that is not says otherwise.
    if processing and len(fitting) > 1 and (fitting.get("python") != "model.py" or "model" in processing):
        fitting.pop("python", None)
    return fitting
