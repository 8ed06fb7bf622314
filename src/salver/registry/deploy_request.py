"""What to deploy, as it is asked for, and the desired state that it makes."""

from __future__ import annotations

from typing import Any

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.registry.settings import unheeded_under

__all__ = ["DeployRequest", "requested_spec"]


class DeployRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to deploy.

    Without `version` the highest release; without `endpoint` one named like the model. Of
    `settings` (the fields of `DeploymentSpec`) those not given stay as they are when the
    endpoint exists already, else take their defaults. So do those that a policy which is given does not heed.
    """

    model: str
    version: str | None = None
    endpoint: str | None = None
    settings: dict[str, Any] = {}

    @property
    def endpoint_name(self) -> str:
        """The endpoint that is meant."""
        return self.endpoint or self.model


def requested_spec(request: DeployRequest, manifest: VersionManifest, current: DeploymentSpec | None) -> DeploymentSpec:
    """What `request` makes of the endpoint's `current` state; raises INVALID_SETTING, naming the setting.

    An endpoint that goes over to another model begins with the defaults.
    """
    fields: dict[str, Any] = {}
    if current is not None and current.model == manifest.model:
        fields = msgspec.to_builtins(current)
    if "policy" in request.settings:
        for name in unheeded_under(request.settings["policy"]):
            fields.pop(name, None)
    runtime = fields.get("runtime", {})
    fields |= request.settings
    if isinstance(request.settings.get("runtime"), dict):
        fields["runtime"] = runtime | request.settings["runtime"]
    fields |= {"endpoint": request.endpoint_name, "model": manifest.model, "version": manifest.version}
    try:
        return msgspec.convert(fields, DeploymentSpec)
    except msgspec.ValidationError as error:
        raise SalverError("INVALID_SETTING", f"the deployment is wrong: {error}") from None
