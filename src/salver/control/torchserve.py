"""TorchServe's management interface, on the administration.

A model's name is an endpoint's. `url` names an artifact in the model store where there is one, else a
registered version, NAME or NAME@VERSION. Workers are replicas: registered without any, a version waits
in the registry until it gets some. An endpoint serves one version, so `set-default` deploys another.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from salver.control.action import Nothing
from salver.control.actions.deployments import DEPLOY, UNDEPLOY, UndeployRequest
from salver.control.actions.descriptions import SHOW_VERSION
from salver.control.actions.models import VERSIONS, OfVersion, OfVersions
from salver.control.actions.status import STATUS
from salver.control.administration import LocalAdministration
from salver.control.model_store import URL, refuse_archive
from salver.control.registration import register_draft
from salver.control.route import Call, ControlRoute
from salver.control.waiting import Watch
from salver.protocol.codecs.torchserve import TorchServeError, torchserve_error
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.names import check_name, parse_reference
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.registry.catalog import MOST_VERSIONS
from salver.registry.deploy_request import DeployRequest
from salver.registry.resolution import LATEST
from salver.runtime.status import EndpointStatus, LoadState
from salver.security.access import Operation

__all__ = ["MANAGEMENT", "Accepted"]

_LOAD_TIMEOUT_S: Final = 120.0
_MOST_WORKERS: Final = 64
_PAGE: Final = 100
_ORDINAL: Final = re.compile(r"[1-9][0-9]{0,8}")
_MILLISECONDS: Final = 1e-3
_NO_ROOM: Final = frozenset(code for code, row in CATALOGUE.items() if row.http == HTTPStatus.INSUFFICIENT_STORAGE)
"""What SageMaker makes room for, by unloading other models."""
_PROCESSING: Final = "Processing worker updates..."


class Accepted(NamedTuple):
    """An answer with the status 202: what it tells of is being done."""

    value: Any


class _Begun(NamedTuple):
    """What has been begun: reaching `spec`, after which `told` is true. Where it fails, `undo` takes it back."""

    spec: DeploymentSpec | None
    told: str
    waits: bool = False
    undo: Callable[[], object] | None = None


def models(admin: LocalAdministration, call: Call) -> dict[str, Any]:
    """A page of the endpoints, by name."""
    most = _whole(call, "limit", _PAGE, 1, 1000)
    start = _whole(call, "next_page_token", 0, 0, 10**9)
    specs = sorted(admin.do(STATUS, Nothing()).deployments, key=lambda spec: spec.endpoint)
    page = [{"modelName": spec.endpoint, "modelUrl": _url(_manifest(admin, spec))} for spec in specs[start:][:most]]
    return {"models": page} | ({"nextPageToken": str(start + most)} if start + most < len(specs) else {})


def describe(admin: LocalAdministration, call: Call) -> list[dict[str, Any]]:
    """What an endpoint does; with a version that of its model, with `all` the newest thousand of them."""
    name, version = call.params["model"], call.params.get("version")
    spec, now = _deployed(admin, name)
    newest = _newest(admin, name, spec)
    if version == "all":
        every = admin.do(VERSIONS, OfVersions(model=newest.model, limit=MOST_VERSIONS, last=True))
        return [_described(name, each, spec, now) for each in reversed(every)]
    version = version or (spec.version if spec else newest.version)
    chosen = _named(admin, newest.model, version)
    if chosen is None:
        raise _no_version(name, version)
    return [_described(name, chosen, spec, now)]


def register(admin: LocalAdministration, call: Call) -> _Begun:
    """Register what `url` names and, with `initial_workers`, deploy it."""
    url, name = call.query.get("url", ""), call.query.get("model_name", "")
    workers = _whole(call, "initial_workers", 0, 0, _MOST_WORKERS)
    settings, waits = _settings(call), _flag(call, "synchronous")
    if not url:
        raise SalverError("INVALID_PARAMETER", "the parameter url is required", "name what to register")
    name, manifest = _found(admin, call, name, url)
    spec, _ = _deployed(admin, name)
    if spec is not None and (spec.model, spec.version) == (manifest.model, manifest.version):
        told = f"Model version {spec.version} is already registered for model {name}"
        raise SalverError("ALREADY_EXISTS", told, "scale its workers, or unregister it first")
    told = f'Model "{name}" Version: {manifest.version} registered with'
    if not workers or spec is not None:
        rest = "Use scale workers API to add workers for the model."
        if spec is not None:
            rest = f"Version {spec.version} is served; set-default changes that."
        return _Begun(None, f"{told} 0 initial workers. {rest}")
    settings["replicas"] = workers
    spec = admin.do(DEPLOY, DeployRequest(manifest.model, manifest.version, name, settings))
    return _Begun(spec, f"{told} {workers} initial workers", waits, functools.partial(_take_back, admin, spec))


def _take_back(admin: LocalAdministration, spec: DeploymentSpec) -> None:
    """Undeploy what could not be loaded, and nothing that others have put there meanwhile."""
    try:
        admin.do(UNDEPLOY, UndeployRequest(spec.endpoint, if_generation=spec.generation))
    except SalverError as error:
        if error.code not in ("CONFLICT", "NOT_FOUND"):
            raise


def scale(admin: LocalAdministration, call: Call) -> _Begun:
    """As many replicas as `min_worker` says; none is undeploying."""
    name, version = call.params["model"], call.params.get("version")
    least, waits = _whole(call, "min_worker", 1, 0, _MOST_WORKERS), _flag(call, "synchronous")
    if _whole(call, "max_worker", least, 0, _MOST_WORKERS) < least:
        raise SalverError("INVALID_PARAMETER", "min_worker is more than max_worker", "give at most max_worker")
    spec, _ = _deployed(admin, name)
    model = _newest(admin, name, spec).model
    chosen = None if version is None else _named(admin, model, version)
    if version is not None and (spec is not None or least) and not _fits(chosen, spec):
        raise _no_version(name, version)
    told = f"Workers scaled to {least} for model: {name}" + (f", version: {version}" if version else "")
    if least == 0:
        if spec is not None:
            admin.do(UNDEPLOY, UndeployRequest(name))
        return _Begun(None, told)
    wanted = spec.version if spec else chosen.version if chosen else None
    began = admin.do(DEPLOY, DeployRequest(model, wanted, name, {"replicas": least}))
    return _Begun(began, told, waits)


def set_default(admin: LocalAdministration, call: Call) -> _Begun:
    """Deploy another version to an endpoint, with the settings it has."""
    name, version = call.params["model"], call.params["version"]
    spec, _ = _deployed(admin, name)
    chosen = _named(admin, _newest(admin, name, spec).model, version)
    if chosen is None:
        raise _no_version(name, version)
    began = admin.do(DEPLOY, DeployRequest(chosen.model, chosen.version, name))
    return _Begun(began, f'Default version successfully updated for model "{name}" to "{chosen.version}"', waits=True)


def unregister(admin: LocalAdministration, call: Call) -> dict[str, str]:
    """Undeploy an endpoint; its versions stay in the registry, where nothing is removed."""
    name, version = call.params["model"], call.params.get("version")
    spec, _ = _deployed(admin, name)
    if spec is None:
        raise _no_model(name)
    if version is not None and not _fits(_named(admin, spec.model, version), spec):
        raise _no_version(name, version)
    admin.do(UNDEPLOY, UndeployRequest(name))
    return {"status": f'Model "{name}" unregistered'}


async def _reached(watch: Watch, begun: _Begun) -> Any:
    """The answer to what was begun: at once, or once the server serves it."""
    if begun.spec is None:
        return {"status": begun.told}
    if not begun.waits:
        return Accepted({"status": _PROCESSING})
    reached = await watch.reached(begun.spec, _LOAD_TIMEOUT_S)
    if reached is None or reached.state not in (LoadState.READY, LoadState.COLD):
        if begun.undo is not None:
            await asyncio.to_thread(begun.undo)
        problem = reached.problem if reached else f"not serving after {_LOAD_TIMEOUT_S:g} s"
        code = reached.code if reached and reached.code in _NO_ROOM else "LOAD_FAILED"
        raise SalverError(code, f"failed to load {begun.spec.endpoint!r}: {problem}")
    return {"status": begun.told}


# What there is.


def _deployed(admin: LocalAdministration, name: str) -> tuple[DeploymentSpec | None, EndpointStatus | None]:
    status = admin.do(STATUS, Nothing())
    spec = next((spec for spec in status.deployments if spec.endpoint == name), None)
    return spec, next((row for row in status.endpoints if row.endpoint == name), None)


def _newest(admin: LocalAdministration, name: str, spec: DeploymentSpec | None) -> VersionManifest:
    """The newest version of an endpoint's model, or else of the model of that name."""
    try:
        model = spec.model if spec else check_name(name, "model")
        return admin.do(VERSIONS, OfVersions(model=model, limit=1, last=True))[0]
    except SalverError as error:
        if error.code not in ("NOT_FOUND", "INVALID_NAME"):
            raise
        raise _no_model(name) from None


def _manifest(admin: LocalAdministration, spec: DeploymentSpec) -> VersionManifest:
    return admin.do(SHOW_VERSION, OfVersion(spec.model, spec.version)).manifest


def _named(admin: LocalAdministration, model: str, version: str) -> VersionManifest | None:
    """A version by its number or its ordinal."""
    if _ORDINAL.fullmatch(version):
        found = admin.do(VERSIONS, OfVersions(model=model, limit=1, after=int(version) - 1))
        return next((each for each in found if str(each.ordinal) == version), None)
    return _shown(admin, model, version) if version[:1].isdigit() else None


def _shown(admin: LocalAdministration, model: str, wanted: str) -> VersionManifest | None:
    try:
        return admin.do(SHOW_VERSION, OfVersion(model, wanted)).manifest
    except SalverError as error:
        if error.code not in ("NOT_FOUND", "INVALID_VERSION"):
            raise
        return None


def _fits(chosen: VersionManifest | None, spec: DeploymentSpec | None) -> bool:
    """Whether it is a version, and where one serves that one."""
    return chosen is not None and (spec is None or chosen.version == spec.version)


def _found(admin: LocalAdministration, call: Call, name: str, url: str) -> tuple[str, VersionManifest]:
    """The version that a URL names, and the endpoint it is for."""
    if call.store is not None and call.store.has(url):
        stem = re.sub(r"[^a-z0-9._-]+", "-", url.rstrip("/").rpartition("/")[2].partition(".")[0].lower())
        name = check_name(name or stem, "model")
        return name, register_draft(admin, call.store.draft(name, url)).manifest
    if "://" in url:
        raise SalverError("UNSUPPORTED", "this server downloads no models", "register them with `salver register`")
    refuse_archive(url)
    try:
        model, version = parse_reference(url)
        admin.do(VERSIONS, OfVersions(model=model, limit=1))
    except SalverError as error:
        remedy = "name a registered one, NAME or NAME@VERSION"
        if call.store is None:
            remedy += ", or set server.model_store and name a file in it"
        raise TorchServeError(
            SalverError("NOT_FOUND", f"there is no model {url[:140]!r}", remedy), "ModelNotFoundException"
        ) from error
    chosen = _shown(admin, model, version or LATEST)
    if chosen is None:
        raise _no_version(model, version or LATEST)
    return check_name(name or model, "endpoint"), chosen


def _url(manifest: VersionManifest) -> str:
    return manifest.metadata.get(URL, manifest.reference)


def _described(
    name: str, manifest: VersionManifest, spec: DeploymentSpec | None, now: EndpointStatus | None
) -> dict[str, Any]:
    serves = spec is not None and spec.version == manifest.version
    replicas = spec.replicas if spec is not None and serves else 0
    ready = serves and now is not None and now.available and now.serving == manifest.reference
    waiting = now.waiting if now is not None and serves else 0
    return {
        "modelName": name,
        "modelVersion": manifest.version,
        "modelUrl": _url(manifest),
        "runtime": manifest.format,
        "minWorkers": replicas,
        "maxWorkers": replicas,
        "batchSize": spec.max_batch if spec else 0,
        "maxBatchDelay": round(spec.max_wait_s / _MILLISECONDS) if spec else 0,
        "loadedAtStartup": False,
        "workers": [
            {"id": str(9000 + at), "status": "READY" if ready else "UNLOADED", "gpu": False} for at in range(replicas)
        ],
        "jobQueueStatus": {
            "remainingCapacity": max(0, spec.max_queue - waiting) if spec is not None and serves else 0,
            "pendingRequests": waiting,
        },
    }


def _no_model(name: str) -> SalverError:
    return TorchServeError(SalverError("NOT_FOUND", f"Model not found: {name[:140]}"), "ModelNotFoundException")


def _no_version(name: str, version: str) -> SalverError:
    told = f"Model version: {version[:64]} does not exist, or is not served, for model: {name[:140]}"
    return TorchServeError(SalverError("NOT_FOUND", told), "ModelVersionNotFoundException")


# What was asked.


def _settings(call: Call) -> dict[str, Any]:
    """The settings of a deployment that TorchServe's parameters mean; those not given keep their defaults."""
    settings: dict[str, Any] = {}
    if "batch_size" in call.query:
        settings["max_batch"] = _whole(call, "batch_size", 1, 1, 65_536)
        delay = _whole(call, "max_batch_delay", 100, 0, 10_000)
        if settings["max_batch"] > 1 and delay:
            settings |= {"policy": "timeout", "max_wait_s": delay * _MILLISECONDS}
    for asked, name in (("response_timeout", "hang_s"), ("startup_timeout", "load_timeout_s")):
        if asked in call.query:
            settings[name] = float(_whole(call, asked, 120, 1, 86_400))
    return settings


def _whole(call: Call, name: str, default: int, least: int, most: int) -> int:
    text = call.query.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise SalverError("INVALID_PARAMETER", f"{name} is {text[:40]!r}", f"use a whole number, {least} to {most}")
    return int(text)


def _flag(call: Call, name: str) -> bool:
    text = call.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise SalverError("INVALID_PARAMETER", f"{name} is {text[:40]!r}", "use true or false")
    return text == "true"


def _row(
    method: str, template: str, act: Callable[[LocalAdministration, Call], Any], summary: str, *, reads: bool = False
) -> ControlRoute:
    operation = Operation.READ if reads else Operation.DEPLOY
    then = _reached if act in (register, scale, set_default) else None
    return ControlRoute(method, template, operation, act, summary, then=then, refusal=torchserve_error)


MANAGEMENT: Final = (
    _row("GET", "/models", models, "All endpoints, as TorchServe lists models", reads=True),
    _row("POST", "/models", register, "Register and deploy, as in TorchServe"),
    _row("GET", "/models/{model}", describe, "What an endpoint does", reads=True),
    _row("PUT", "/models/{model}", scale, "Change the number of replicas"),
    _row("DELETE", "/models/{model}", unregister, "Remove an endpoint"),
    _row("GET", "/models/{model}/{version}", describe, "The same of a version", reads=True),
    _row("PUT", "/models/{model}/{version}", scale, "The same for a version"),
    _row("DELETE", "/models/{model}/{version}", unregister, "Remove an endpoint"),
    _row("PUT", "/models/{model}/{version}/set-default", set_default, "Deploy a version"),
)
