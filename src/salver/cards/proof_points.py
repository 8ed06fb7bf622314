"""Points of the checklist about what a version is and what is said of it: packaging, registry, API, governance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from salver.cards.document import day, listed
from salver.cards.points import Found, check_in_evaluations, evidence_of, good, stated
from salver.protocol.stages import OUT, Stage
from salver.protocol.verdict import Verdict
from salver.registry.candidate import Evidence, person_of
from salver.registry.dossier import Dossier

__all__ = ["COMPATIBILITY", "GOVERNANCE", "PACKAGING", "REGISTRY"]

Look = Callable[[Dossier], Found]
_CHANGED: Final = "with changes that nobody has committed"
_COMMIT_FIRST: Final = "commit, make it again from that, and register it"


def _signed(dossier: Dossier) -> Found:
    if not dossier.key_id:
        return Found(Verdict.FAILED, "nobody has signed it", "register it again: whatever is registered is signed")
    return good(f"signed by key {dossier.key_id[:16]} on {day(dossier.signed_s or 0.0)}")


def _verified(dossier: Dossier) -> Found:
    """Nothing is loaded whose bytes and signature do not fit, so whatever was asked has been verified."""
    for each in dossier.evaluations:
        if each.digest == dossier.manifest.digest and each.verdict is not Verdict.ERROR:
            when = day(each.recorded_s)
            said = f"suite {each.suite} loaded these very bytes on {when}, which verifies digest and signature"
            return good(said, evidence=evidence_of(each))
    return Found(
        Verdict.INCONCLUSIVE, "nothing that is recorded has loaded these very bytes", "salver check NAME@VERSION"
    )


def _is_data(dossier: Dossier) -> Found:
    if not dossier.manifest.runs_user_code:
        return good(f"{dossier.manifest.format} is data: nothing in it is executed", required=False)
    said = "loading or asking it runs code that came with it, in a worker process"
    return Found(Verdict.INCONCLUSIVE, said, "register it in a format of data, such as ONNX, if it can be", False)


def _environment(dossier: Dossier) -> Found:
    digest = dossier.page.description.lock_digest
    lock = f"a lock file with digest {digest[:16]}" if digest else ""
    return stated("the environment it was trained in", lock, "environment", required=False)


def _training_data(dossier: Dossier) -> Found:
    data = dossier.page.description.training_data
    if data is None:
        return stated("the training data", "", "training_data.name")
    if not data.digest:
        said = f"training data {data.name or data.uri} is named without a digest, so nobody can tell which it was"
        return Found(
            Verdict.INCONCLUSIVE, said, "salver describe NAME@VERSION --set training_data.digest=$(sha256sum ...)"
        )
    named = " ".join(filter(None, ("training data", data.name or data.uri)))
    return good(f"{named} with digest {data.digest.removeprefix('sha256:')[:16]}")


def _not_revoked(dossier: Dossier) -> Found:
    if dossier.revoked:
        return Found(Verdict.FAILED, f"it was revoked: {dossier.revoked}", "register another version")
    return good("it was not revoked")


def _stage(dossier: Dossier) -> Found:
    stage = dossier.page.stage
    if dossier.page.deleted:
        return Found(Verdict.FAILED, f"its files were deleted: {dossier.page.deleted}", "register another version")
    if stage in OUT:
        remedy = "salver promote NAME@VERSION staging" if stage == Stage.ARCHIVED else "register another version"
        return Found(Verdict.FAILED, f"it is {stage}", remedy)
    if dossier.retirement:
        said = f"it is proposed for the archive: {dossier.retirement}"
        return Found(Verdict.FAILED, said, "salver retire cancel NAME@VERSION")
    return good(f"it is in {stage} and not proposed for the archive")


def _origin(dossier: Dossier) -> Found:
    said = dossier.page.description
    known = {"code": said.code_commit, "run": said.run_id, "image": said.image_digest}
    named = [f"{name} {value}" for name, value in known.items() if value]
    if said.code_dirty:
        return Found(Verdict.INCONCLUSIVE, f"it comes from {listed(named)}, {_CHANGED}", _COMMIT_FIRST, False)
    return stated("where it comes from", listed(named), "code_commit", required=False)


PACKAGING: Final[dict[str, Look]] = {
    "signed": _signed,
    "verified": _verified,
    "no code inside": _is_data,
    "environment pinned": _environment,
}
REGISTRY: Final[dict[str, Look]] = {
    "described": lambda dossier: stated("what it does", dossier.page.description.description, "description"),
    "training data known": _training_data,
    "origin known": _origin,
    "not revoked": _not_revoked,
    "not on its way out": _stage,
}


def _meaning(dossier: Dossier) -> Found:
    """Rows of several numbers without names are read by counting columns, and mistaken when they change."""
    outputs = dossier.manifest.signature.outputs
    bare = [each.name for each in outputs if not each.labels and each.shape[1:2] and each.shape[-1] not in (1, -1)]
    if bare and dossier.manifest.kind != "embed":
        said = f"nobody says what the columns of output {listed(map(repr, bare))} stand for"
        return Found(Verdict.INCONCLUSIVE, said, "give labels in salver-model.toml and register it", required=False)
    return good("every output has a name, a datatype and a shape", required=False)


def _clients(dossier: Dossier) -> Found:
    """Whether clients of what is in production would understand it."""
    for each in dossier.in_production:
        if each.breaks:
            said = f"clients of {each.version}, which is in production, may break: {each.breaks[0]}"
            remedy = f"deploy it as an endpoint of its own until they have moved from {each.version}"
            return Found(Verdict.INCONCLUSIVE, said, remedy, required=False)
    return good("nothing in production has clients that it would break", required=False)


def _contract(dossier: Dossier) -> Found:
    missing = "no recorded traffic was replayed against it"
    return check_in_evaluations(dossier, "contract", missing, "see contract tests in docs/evaluation.md")


COMPATIBILITY: Final[dict[str, Look]] = {
    "outputs explained": _meaning,
    "clients understand it": _clients,
    "contract kept": _contract,
}


def _approved(dossier: Dossier) -> Found:
    """Approvals that hold now, or that the newest move rests on: the author's do not count."""
    author, asked = person_of(dossier.page.registered_by), dossier.approvals_asked
    people = {person_of(each.approved_by): each.approved_by for each in dossier.approvals}
    moved = next((each for each in dossier.decisions if each.moved), None)
    for gate in moved.gates if moved else ():
        people |= {person_of(each.actor): each.actor for each in gate.evidence if each.kind == "approval"}
    people.pop(author, None)
    evidence = tuple(Evidence("approval", who, "agrees", who) for who in people.values())
    said = f"approved by {listed(people.values())}" if people else "nobody but its author stands for it"
    if len(people) >= max(asked, 1):
        return good(said, required=asked > 0, evidence=evidence)
    if asked:
        said += f"; the policy asks for {asked} before production"
    return Found(Verdict.INCONCLUSIVE, said, "salver approve NAME@VERSION STAGE, by somebody else", asked > 0, evidence)


def _emergency(dossier: Dossier) -> Found:
    if dossier.page.emergency:
        said = "it was once promoted past its gates; that stays with it"
        return Found(Verdict.FAILED, said, "salver decisions NAME@VERSION says why; catch up on what was passed", False)
    return good("it never went past its gates", required=False)


def _reproducible(dossier: Dossier) -> Found:
    said = dossier.page.description
    known = {
        "code_commit": said.code_commit,
        "training_data.digest": said.training_data.digest if said.training_data else "",
        "environment": said.lock_digest or said.image_digest,
    }
    missing = [name for name, value in known.items() if not value]
    if missing:
        return Found(
            Verdict.INCONCLUSIVE,
            f"nobody could make it again: {listed(missing)} not stated",
            f"salver describe NAME@VERSION --set {missing[0]}=...",
            required=False,
        )
    if said.code_dirty:
        return Found(Verdict.INCONCLUSIVE, f"nobody could make it again: commit {_CHANGED}", _COMMIT_FIRST, False)
    return good("code, data and environment are pinned", required=False)


GOVERNANCE: Final[dict[str, Look]] = {
    "owner": lambda dossier: stated("the owner", dossier.page.description.owner, "owner"),
    "licence": lambda dossier: stated("the licence", dossier.page.description.licence, "licence"),
    "intended use": lambda dossier: stated("the intended use", dossier.page.description.intended_use, "intended_use"),
    "limitations": lambda dossier: stated(
        "limitations", dossier.page.description.limitations, "limitations", required=False
    ),
    "approved": _approved,
    "gates kept": _emergency,
    "reproducible": _reproducible,
    "fairness looked at": lambda dossier: check_in_evaluations(
        dossier, "fairness", "no evaluation has looked at groups", "add [fairness] to the suite"
    ),
}
