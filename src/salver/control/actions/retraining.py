"""Retraining: what is set up for it on this machine, and its runs. Nothing here says what is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from salver.control.action import Action
from salver.control.actions.models import OfModel
from salver.control.retraining_hooks import hook_of, read_hooks
from salver.registry.retraining import RunEnd, RunStart
from salver.registry.retraining_runs import RetrainingState
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "ANNOUNCE_HOOK", "BEGIN_RETRAINING", "END_RETRAINING", "RETRAINING", "Announced", "Begin"]


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run of a model's hook is to begin."""

    model: str
    evaluation: str | None = None
    """The id of the one that calls for it; without it the newest of what is in production."""
    now: bool = False
    """Whether or not it was run a short while ago."""
    why: str = ""


class Announced(msgspec.Struct, frozen=True):
    """Whether the journal has a new record."""

    changed: bool


def _announce(admin: LocalAdministration, asked: OfModel) -> Announced:
    hook = read_hooks(admin.home).get(asked.model)
    document: dict[str, Any] | None = None if hook is None else msgspec.json.decode(msgspec.json.encode(hook))
    return Announced(admin.records.retrainings.announce(admin.principal, asked.model, document))


def _begin(admin: LocalAdministration, asked: Begin) -> RunStart:
    hook = hook_of(admin.home, asked.model)
    cool_down_s = 0.0 if asked.now else hook.cool_down_s
    return admin.records.retrainings.begin(admin.principal, asked.model, cool_down_s, asked.evaluation, asked.why)


def _state(admin: LocalAdministration, asked: OfModel) -> RetrainingState:
    return admin.records.retrainings.state(asked.model, hook_of(admin.home, asked.model).cool_down_s)


RETRAINING: Final = Action(
    "GET",
    "/v1/models/{model}/retraining",
    Operation.READ,
    "How the retraining of a model stands: its newest run, and until when it rests",
    OfModel,
    RetrainingState,
    _state,
)
ANNOUNCE_HOOK: Final = Action(
    "POST",
    "/v1/models/{model}/retraining/hook",
    Operation.SET_POLICY,
    "Put on the journal which retraining hook a model has on the server's machine",
    OfModel,
    Announced,
    _announce,
)
BEGIN_RETRAINING: Final = Action(
    "POST",
    "/v1/models/{model}/retraining",
    Operation.OPERATE,
    "Put on the journal that a run of a model's retraining hook begins; it is run by whoever asks",
    Begin,
    RunStart,
    _begin,
)
END_RETRAINING: Final = Action(
    "POST",
    "/v1/models/{model}/retraining/end",
    Operation.OPERATE,
    "Put on the journal what became of a run",
    RunEnd,
    RunEnd,
    lambda admin, asked: admin.records.retrainings.end(admin.principal, asked),
)
ACTIONS: Final = (RETRAINING, ANNOUNCE_HOOK, BEGIN_RETRAINING, END_RETRAINING)
