"""Writing the directory: all of it or nothing."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from salver.packaging.pins import pinned_requirements
from salver.packaging.wheel import write_wheel
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.protocol.tables import Tables
from salver.storage.snapshot import full_disk_is_reported, read_json

__all__ = ["Recipe", "write_recipe"]

_BASE_IMAGES: Final = {
    (3, 11): "python:3.11.13-slim-bookworm",
    (3, 12): "python:3.12.11-slim-bookworm",
    (3, 13): "python:3.13.5-slim-bookworm",
}
_IMAGE: Final = re.compile(
    r"[a-z0-9][a-z0-9._/:-]{0,200}?(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)
_PYTHON_TAG: Final = re.compile(r"(?:.*/)?python:(\d+)(?:\.(\d+))?(\.\d+)?.*")
_SECRETS: Final = frozenset({"admin.token", "secrets", "pepper"})
_PASSING: Final = frozenset({"lock", "serve.json", "scratch"})
"""What belongs to a running server, not to a home at rest."""
_TEMPLATES: Final = Path(__file__).parent / "image"
_USER: Final = 10001
_START: Final = r"""
ENTRYPOINT ["salver"]
CMD ["serve", "--host", "0.0.0.0", "--http", "8080", "--require-token", \
     "--tls-cert", "/run/secrets/tls.crt", "--tls-key", "/run/secrets/tls.key"]
""".strip()
_START_MANAGED: Final = r"""
LABEL com.amazonaws.sagemaker.capabilities.multi-models="true" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
ENTRYPOINT ["salver", "container"]
CMD ["serve"]
""".strip()


class Recipe(msgspec.Struct, frozen=True):
    """What was written: the directory, and what the image will be."""

    directory: str
    endpoint: str
    image: str
    base_image: str
    packages: tuple[str, ...]
    size_bytes: int


def write_recipe(
    destination: Path,
    *,
    endpoint: str,
    reference: str,
    fill_home: Callable[[Path], None],
    extras: Iterable[str] = (),
    also: Iterable[str] = (),
    base_image: str | None = None,
    image: str | None = None,
    managed: bool = False,
) -> Recipe:
    """Write the recipe for `endpoint`, serving the version `reference`, to a new directory.

    `fill_home` gets an empty directory and makes it a home that holds this endpoint's version
    only, without secrets. `extras` are those of Salver that the model's format needs, `also`
    further distributions that its own code imports. `base_image` is a Python image under an
    exact tag, `image` what to call the result. A `managed` image is for platforms that end TLS, know their
    callers and say the rest in the environment, see `salver.packaging.platform`. Appears whole or not at
    all; nothing is fetched. Raises ALREADY_EXISTS, INVALID_SETTING for an image that is not pinned or a
    package that is not installed here, REFUSED_BY_POLICY for a home with secrets, STORAGE_FULL.
    """
    check_name(endpoint, "endpoint")
    base_image = _check_base_image(base_image)
    image = image or f"salver-{endpoint}:{reference.partition('@')[2] or 'latest'}".replace("+", "-")
    packages = tuple(pinned_requirements(extras, also))
    with full_disk_is_reported(), _appearing(destination) as building:
        home = building / "home"
        home.mkdir(mode=0o700)
        fill_home(home)
        _check_home(home)
        values = {
            "BASE_IMAGE": base_image,
            "ENDPOINT": endpoint,
            "REFERENCE": reference,
            "IMAGE": image,
            "CONTAINER": re.sub(r"[^a-zA-Z0-9_.-]+", "-", image),
            "WHEEL": write_wheel(building),
            "USER": str(_USER),
            "START": _START_MANAGED if managed else _START,
        }
        (building / "requirements.txt").write_text("".join(f"{line}\n" for line in packages))
        templates = {name: name for name in ("Dockerfile", "README.md", "health.py")}
        templates |= {".dockerignore": "dockerignore"} | ({"README.md": "README-managed.md"} if managed else {})
        for name, template in templates.items():
            (building / name).write_text(_filled((_TEMPLATES / template).read_text(), values))
        size_bytes = sum(path.stat().st_size for path in building.rglob("*") if path.is_file())
    return Recipe(str(destination), endpoint, image, base_image, packages, size_bytes)


@contextlib.contextmanager
def _appearing(destination: Path) -> Iterator[Path]:
    """A directory to write in, which becomes `destination` unless something is raised."""
    if destination.is_symlink() or (destination.exists() and not _is_empty_directory(destination)):
        raise SalverError(
            "ALREADY_EXISTS", f"{destination.name!r} exists and is not an empty directory", "name a new directory"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        yield building
        building.chmod(0o755)
        building.rename(destination)  # replaces an empty directory, and nothing else
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _check_base_image(image: str | None) -> str:
    here = sys.version_info[:2]
    if image is None:
        return _BASE_IMAGES.get(here, f"python:{'.'.join(map(str, sys.version_info[:3]))}-slim")
    match = _IMAGE.fullmatch(image)
    if match is None or not (match["digest"] or match["tag"] not in (None, "latest")):
        raise SalverError(
            "INVALID_SETTING",
            f"base image {image[:120]!r} has no exact tag",
            f"pin it, for example {_BASE_IMAGES[3, 11]}, or name a digest with @sha256:",
        )
    python = _PYTHON_TAG.fullmatch(image)
    if python is not None and (int(python[1]), int(python[2] or here[1])) != here:
        raise SalverError(
            "INVALID_SETTING",
            f"base image {image!r} has another Python than this one, {here[0]}.{here[1]}",
            "the pinned versions are those installed here: use the same Python, or run Salver on the other",
        )
    if python is not None and python[3] is None and not match["digest"]:
        raise SalverError("INVALID_SETTING", f"the tag of base image {image!r} moves", "name the patch release too")
    return image


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _check_home(home: Path) -> None:
    """Nothing secret, nothing of a running server, nothing but files may go into an image."""
    for path in home.rglob("*"):
        name = path.relative_to(home).as_posix()
        if _SECRETS & set(path.relative_to(home).parts):
            raise SalverError("REFUSED_BY_POLICY", f"the home for the image holds a secret, {name!r}", "leave it out")
        mode = path.lstat().st_mode
        if path.name in _PASSING or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise SalverError("REFUSED_BY_POLICY", f"the home for the image holds {name!r}", "leave it out")
    tables = read_json(home / "tables.json", Tables)
    if tables is not None and tables.tokens:
        raise SalverError("REFUSED_BY_POLICY", "the tables for the image hold tokens", "leave them out")


def _filled(template: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)
