"""What the evidence says of a version: its card, the sheet of its data, and the readiness checklist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from salver.cards.card import model_card
from salver.cards.checklist import Checklist, checklist
from salver.cards.document import Document
from salver.cards.sheet import data_sheet
from salver.control.action import Action
from salver.control.actions.models import OfVersion
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "CARD", "CHECKLIST", "DATASHEET"]


def _card(admin: LocalAdministration, asked: OfVersion) -> Document:
    return model_card(admin.records.dossiers.of(asked.model, asked.version))


def _sheet(admin: LocalAdministration, asked: OfVersion) -> Document:
    page = admin.records.pages.page(asked.model, asked.version)
    return data_sheet(page, None, admin.records.clock.wall_s())


def _checklist(admin: LocalAdministration, asked: OfVersion) -> Checklist:
    return checklist(admin.records.dossiers.of(asked.model, asked.version))


CARD: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/card",
    Operation.READ,
    "The model card of a version, from its evidence",
    OfVersion,
    Document,
    _card,
)
DATASHEET: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/datasheet",
    Operation.READ,
    "The data sheet of what a version was trained on, from its profile and description",
    OfVersion,
    Document,
    _sheet,
)
CHECKLIST: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/checklist",
    Operation.READ,
    "Whether everything is there that a version needs before production",
    OfVersion,
    Checklist,
    _checklist,
)
ACTIONS: Final = (CARD, DATASHEET, CHECKLIST)
