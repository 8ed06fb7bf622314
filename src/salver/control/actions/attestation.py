"""The signatures of versions."""

from __future__ import annotations

from typing import Final

from salver.control.action import Action
from salver.control.actions.models import OfVersion
from salver.registry.attestation import Attestation
from salver.security.access import Operation

__all__ = ["ACTIONS", "ATTESTATION"]

ATTESTATION: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/attestation",
    Operation.READ,
    "The signed manifest of a version",
    OfVersion,
    Attestation,
    lambda admin, asked: admin.records.pages.attestation(asked.model, asked.version),
)
ACTIONS: Final = (ATTESTATION,)
