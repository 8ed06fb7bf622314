"""The routes of the control listener: every path and verb, what it requires and what it does.

The table is the single source: requests are dispatched from it, OpenAPI and the documentation
page are written from it.
"""

from __future__ import annotations

from typing import Final

from salver.control.actions import ACTIONS
from salver.control.administration import DeployRequest, Registered, ServerStatus
from salver.control.examination import register_examined
from salver.control.repository import RepositoryModel, load, loaded, repository_index, unload
from salver.control.route import Call, ControlRoute
from salver.control.torchserve import MANAGEMENT
from salver.control.uploads import destination, receive, send, size_of, tell_size, wanted_file
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.registry.catalog import ModelSummary
from salver.registry.draft import VersionDraft
from salver.security.access import Operation

__all__ = ["ROUTES"]

ROUTES: Final = (
    ControlRoute("GET", "/v1/status", Operation.READ, lambda admin, _: admin.status(), "State", None, ServerStatus),
    ControlRoute(
        "GET",
        "/v1/models",
        Operation.READ,
        lambda admin, _: admin.models(),
        "All models",
        None,
        tuple[ModelSummary, ...],
    ),
    ControlRoute(
        "GET",
        "/v1/models/{model}",
        Operation.READ,
        lambda admin, call: admin.versions(call.params["model"]),
        "All versions of a model",
        None,
        tuple[VersionManifest, ...],
    ),
    ControlRoute(
        "POST",
        "/v1/versions",
        Operation.REGISTER,
        lambda admin, call: admin.register(call.body) if call.on_this_machine else register_examined(admin, call.body),
        "Register a version whose blobs are stored",
        VersionDraft,
        Registered,
    ),
    ControlRoute(
        "POST",
        "/v1/deployments",
        Operation.DEPLOY,
        lambda admin, call: admin.deploy(call.body),
        "Deploy a version to an endpoint",
        DeployRequest,
        DeploymentSpec,
    ),
    ControlRoute(
        "DELETE",
        "/v1/deployments/{endpoint}",
        Operation.DEPLOY,
        lambda admin, call: admin.undeploy(
            call.params["endpoint"],
            _whole(call, "if_generation", 0, 2**53) if "if_generation" in call.query else None,
        ),
        "Remove an endpoint",
        None,
        DeploymentSpec,
    ),
    ControlRoute(
        "POST",
        "/v2/repository/index",
        Operation.READ,
        lambda admin, call: repository_index(admin, call.body),
        "All endpoints, and registered models that none serves, in the Open Inference Protocol",
        None,
        list[RepositoryModel],
    ),
    ControlRoute(
        "POST",
        "/v2/repository/{repository}/index",
        Operation.READ,
        lambda admin, call: repository_index(admin, call.body),
        "The same: there is one repository, whatever it is called",
        None,
        list[RepositoryModel],
    ),
    ControlRoute(
        "POST",
        "/v2/repository/models/{model}/load",
        Operation.DEPLOY,
        lambda admin, call: load(admin, call.params["model"], call.body),
        "Deploy the highest release of an endpoint's model and wait until it serves",
        then=loaded,
    ),
    ControlRoute(
        "POST",
        "/v2/repository/models/{model}/unload",
        Operation.DEPLOY,
        lambda admin, call: unload(admin, call.params["model"]),
        "Remove an endpoint",
    ),
    ControlRoute(
        "HEAD",
        "/v1/blobs/{sha256}",
        Operation.REGISTER,
        size_of,
        "Whether a file is stored, by its SHA-256, and how large it is",
        transfer=tell_size,
    ),
    ControlRoute(
        "PUT",
        "/v1/blobs/{sha256}",
        Operation.REGISTER,
        destination,
        "Store a file under its SHA-256; until a version has it, only for a while",
        transfer=receive,
    ),
    ControlRoute(
        "GET",
        "/v1/models/{model}/versions/{version}/files/{path}",
        Operation.READ,
        wanted_file,
        "A file of a version",
        transfer=send,
    ),
    *(action.route for action in ACTIONS),
    *MANAGEMENT,
)


def _whole(call: Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 18 and int(text) <= most):
        raise SalverError("INVALID_PARAMETER", f"{name} is {text[:40]!r}", f"use a whole number up to {most}")
    return int(text)
