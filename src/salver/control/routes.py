"""The routes of the control listener: every path and verb, what it requires and what it does.

The table is the single source: requests are dispatched from it, OpenAPI and the documentation
page are written from it.
"""

from __future__ import annotations

from typing import Final

from salver.control.actions import ACTIONS
from salver.control.repository import RepositoryModel, load, loaded, repository_index, unload
from salver.control.route import ControlRoute
from salver.control.torchserve import MANAGEMENT
from salver.control.uploads import destination, receive, send, size_of, tell_size, wanted_file
from salver.security.access import Operation

__all__ = ["ROUTES"]

ROUTES: Final = (
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
