"""The model registry of a running MLflow tracking server, over its REST interface.

Models are named as MLflow names them: models:/NAME/VERSION, models:/NAME/STAGE, models:/NAME@ALIAS, and
models:/NAME for the latest. Files come through the server itself (its proxy for artifacts): a registry whose
server hands out the addresses of a store of its own is refused, because credentials for that are nobody's here.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from salver.imports import mlflow
from salver.imports.downloads import Server
from salver.imports.imported import Imported
from salver.protocol.errors import SalverError
from salver.protocol.formats import MAX_FILES

__all__ = ["RegisteredVersion", "convert", "credentials", "list_versions", "parse_uri"]

_URI: Final = re.compile(r"models:/(?P<name>[^/@]{1,256})(?:/(?P<which>[^/@]{1,64})|@(?P<alias>[^/@]{1,256}))?")
_RUN: Final = re.compile(r"runs:/(?P<run>[0-9a-f]{32})/(?P<path>[^?#]+)")
_API: Final = "/api/2.0/mlflow"
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE: Final = 200
_MOST_PAGES: Final = 500
_DEEPEST: Final = 16


class RegisteredVersion(msgspec.Struct, frozen=True):
    """One version of MLflow's registry, as it tells of it."""

    name: str
    version: int
    stage: str = ""
    aliases: tuple[str, ...] = ()
    description: str = ""
    run_id: str = ""
    source: str = ""
    tags: dict[str, str] = {}
    status: str = ""


def credentials(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers that MLflow's own client would send, from the variables it reads."""
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    user, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {"authorization": f"Bearer {token}"} if token else {}


def parse_uri(uri: str) -> tuple[str, str, str]:
    """The name, version or stage, and alias of a "models:/..."; raises INVALID_SETTING.

    >>> parse_uri("models:/iris/3"), parse_uri("models:/iris@champion")
    (('iris', '3', ''), ('iris', '', 'champion'))
    """
    match = _URI.fullmatch(uri)
    if match is None or "\0" in uri:
        raise SalverError(
            "INVALID_SETTING",
            f"{uri[:140]!r} names no model of MLflow",
            "write models:/NAME, models:/NAME/VERSION, models:/NAME/STAGE or models:/NAME@ALIAS",
        )
    return match["name"], match["which"] or "", match["alias"] or ""


def list_versions(server: Server, name: str) -> list[RegisteredVersion]:
    """All versions of a model, by number; NOT_FOUND for a model that is not there."""
    model = _table(server.json(f"{_API}/registered-models/get", {"name": name}).get("registered_model"))
    aliases: dict[str, list[str]] = {}
    for each in _tables(model.get("aliases")):
        aliases.setdefault(str(each.get("version")), []).append(str(each.get("alias")))
    # MLflow's filters know no escapes; what they find besides is left out below.
    quote_mark = '"' if "'" in name else "'"
    wanted = {"filter": f"name={quote_mark}{name}{quote_mark}", "max_results": str(_PAGE)}
    found, token = [], ""
    for _ in range(_MOST_PAGES):
        answer = server.json(f"{_API}/model-versions/search", wanted | ({"page_token": token} if token else {}))
        found += [_version(each, aliases) for each in _tables(answer.get("model_versions"))]
        token = str(answer.get("next_page_token") or "")
        if not token:
            break
    return sorted((each for each in found if each.name == name), key=lambda each: each.version)


def convert(server: Server, uri: str, into: Path) -> Imported:
    """Download the version that `uri` names beside `into`, and convert it into `into`."""
    name, which, alias = parse_uri(uri)
    version = _chosen(list_versions(server, name), name, which, alias)
    downloaded = into.with_name(f"{into.name}.download")
    asked = {"name": name, "version": str(version.version)}
    told = server.json(f"{_API}/model-versions/get-download-uri", asked)
    _download(server, _place(server, str(told.get("artifact_uri", ""))), downloaded)
    made = mlflow.convert(downloaded, into)
    facts = made.metadata | _facts(version) | _of_run(server, version.run_id)
    return msgspec.structs.replace(made, metadata=facts)


def _chosen(versions: list[RegisteredVersion], name: str, which: str, alias: str) -> RegisteredVersion:
    if alias:
        found = [each for each in versions if alias in each.aliases]
    elif which.isdecimal():
        found = [each for each in versions if each.version == int(which)]
    elif which and which != "latest":
        found = [each for each in versions if each.stage.lower() == which.lower()]
    else:
        found = versions
    if not found:
        raise SalverError(
            "NOT_FOUND",
            f"MLflow's model {name!r} has no version {which or alias!r}",
            f"its versions are {', '.join(str(each.version) for each in versions[-20:]) or 'none'}",
        )
    return found[-1]


def _place(server: Server, uri: str) -> str:
    """The path below the artifact proxy of "mlflow-artifacts:/...", whatever host that names, or of "runs:/ID/PATH"."""
    of_run = _RUN.fullmatch(uri)
    if of_run is not None:
        info = _table(_table(server.json(f"{_API}/runs/get", {"run_id": of_run["run"]}).get("run")).get("info"))
        uri = f"{str(info.get('artifact_uri', '')).rstrip('/')}/{of_run['path']}"
    parts = urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        return _plain(parts.path.strip("/"))
    if parts.scheme in ("http", "https") and _ARTIFACTS in parts.path:
        return _plain(parts.path.partition(_ARTIFACTS)[2].strip("/"))
    raise SalverError(
        "UNSUPPORTED",
        f"the server keeps the files at {parts.scheme or 'a path'}: and does not hand them out itself",
        "start it with --serve-artifacts, or download the model with MLflow and import the directory",
    )


def _download(server: Server, root: str, into: Path) -> None:
    """All files below `root`; names come from the server and are not believed."""
    waiting, seen = [("", 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        if depth > _DEEPEST:
            raise SalverError("INVALID_ARTIFACT", f"the directories of the model are more than {_DEEPEST} deep")
        listed = server.json(_ARTIFACTS, {"path": f"{root}/{folder}".strip("/")})
        for each in _tables(listed.get("files")):
            seen += 1
            if seen > MAX_FILES:
                raise SalverError("INVALID_ARTIFACT", f"the model has more than {MAX_FILES} files")
            relative = _plain(f"{folder}/{each.get('path', '')}".strip("/"))
            if each.get("is_dir"):
                waiting.append((relative, depth + 1))
            else:
                server.download(f"{_ARTIFACTS}/{quote(f'{root}/{relative}')}", into / relative)
    if not seen:
        raise SalverError("NOT_FOUND", "the version has no files", "log the model anew")


def _plain(path: str) -> str:
    parts = path.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable()
    if odd or len(path.encode(errors="replace")) > 1024:
        raise SalverError("INVALID_ARTIFACT", f"the server names a file {path[:140]!r}, which is no plain path")
    return path


def _version(told: Mapping[str, Any], aliases: Mapping[str, list[str]]) -> RegisteredVersion:
    number = str(told.get("version"))
    if not number.isdecimal():
        raise SalverError("CONTROL_UNAVAILABLE", f"MLflow names a version {number[:40]!r}, which is no number")
    stage = str(told.get("current_stage") or "")
    return RegisteredVersion(
        name=str(told.get("name")),
        version=int(number),
        stage="" if stage == "None" else stage,
        aliases=tuple(sorted(aliases.get(number, ()))),
        description=str(told.get("description") or ""),
        run_id=str(told.get("run_id") or ""),
        source=str(told.get("source") or ""),
        tags={str(tag.get("key")): str(tag.get("value")) for tag in _tables(told.get("tags"))},
        status=str(told.get("status") or ""),
    )


def _facts(version: RegisteredVersion) -> dict[str, Any]:
    return {
        "imported_from": f"models:/{version.name}/{version.version}",
        "version": str(version.version),
        "stage": version.stage,
        "aliases": list(version.aliases),
        "description": version.description,
        "tags": version.tags,
    }


def _of_run(server: Server, run_id: str) -> dict[str, Any]:
    """What the run that made the version says: its metrics, parameters and data. Nothing, where it is gone."""
    if not run_id:
        return {}
    try:
        run = _table(server.json(f"{_API}/runs/get", {"run_id": run_id}).get("run"))
    except SalverError as error:
        if error.code != "NOT_FOUND":
            raise
        return {"run_id": run_id}
    data, inputs = _table(run.get("data")), _table(run.get("inputs"))
    tags = {str(each.get("key")): str(each.get("value")) for each in _tables(data.get("tags"))}
    sets = [_table(each.get("dataset")) for each in _tables(inputs.get("dataset_inputs"))]
    return {
        "run_id": run_id,
        "metrics": {str(each.get("key")): each.get("value") for each in _tables(data.get("metrics"))},
        "parameters": {str(each.get("key")): str(each.get("value")) for each in _tables(data.get("params"))},
        "training_data": [
            {key: each[key] for key in ("name", "digest", "source_type") if key in each} for each in sets
        ],
        "code_commit": tags.get("mlflow.source.git.commit"),
        "publisher": tags.get("mlflow.user"),
    }


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
