"""The model card of a version, from its dossier (Mitchell et al. 2019, Model Cards for Model Reporting).

Three kinds of things stand in it and are told apart: what the registry knows because it did it, what people have
stated, and what evaluations have found. What nobody has stated is said to be not stated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from salver.cards.card_evidence import deployed, evaluated, way_here
from salver.cards.document import Document, Fact, Grid, Section, amount, listed, moment, number
from salver.protocol.description import DataReference
from salver.protocol.signature import TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.verdict import Verdict
from salver.registry.dossier import Dossier

__all__ = ["model_card", "warnings_of"]

_MOST_LABELS: Final = 20


def model_card(dossier: Dossier) -> Document:
    """Everything that is known of the version, in the order of a model card."""
    return Document(
        "Model card",
        dossier.manifest.reference,
        dossier.at_s,
        warnings_of(dossier),
        sections=(
            _details(dossier),
            _uses(dossier),
            _interface(dossier),
            _training(dossier),
            *evaluated(dossier),
            _lineage(dossier),
            way_here(dossier),
            deployed(dossier),
            _caveats(dossier),
        ),
    )


def warnings_of(dossier: Dossier) -> tuple[str, ...]:
    """What nobody may overlook."""
    page, found = dossier.page, []
    if dossier.revoked:
        found.append(f"Revoked: {dossier.revoked}")
    if page.emergency:
        found.append("Once promoted past its gates, in an emergency.")
    if page.stage == Stage.REJECTED:
        found.append("Rejected: put right in another version.")
    if page.stage == Stage.ARCHIVED:
        found.append("Archived: not to be deployed.")
    if dossier.retirement:
        found.append(f"To be archived from {moment(dossier.retirement_due_s)} on: {dossier.retirement}")
    if not dossier.key_id:
        found.append("Not signed: nobody vouches for its bytes.")
    return tuple(found)


def _details(dossier: Dossier) -> Section:
    page, manifest, said = dossier.page, dossier.manifest, dossier.page.description
    code = "yes, in a worker process of its own" if manifest.runs_user_code else "no, it is data"
    return Section(
        "Model details",
        facts=(
            Fact.of("Description", said.description),
            Fact.of("Task", said.task),
            Fact("Version", manifest.version),
            Fact.of("What is new", said.change_note),
            Fact("Stage", page.stage),
            Fact.of("Aliases", listed(page.aliases), "none"),
            Fact.of("Tags", listed(f"{name} = {value}" for name, value in page.tags.items()), "none"),
            Fact.of("Owner", said.owner),
            Fact.of("Publisher", said.publisher),
            Fact.of("Licence", said.licence),
            Fact.of("Base model", said.base_model),
            Fact("Registered", f"{moment(page.registered_s)} by {page.registered_by}"),
            Fact("Format", f"{manifest.format}, of kind {manifest.kind}"),
            Fact("Runs code that came with it", code),
            Fact("Size", f"{amount(manifest.size_bytes)}, {_counted(len(manifest.files), 'file')}"),
            Fact("SHA-256 of its files", manifest.digest),
            Fact.of("Signed", _signed(dossier), "no"),
        ),
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _signed(dossier: Dossier) -> str:
    return f"{moment(dossier.signed_s)} by key {dossier.key_id[:16]}" if dossier.key_id else ""


def _uses(dossier: Dossier) -> Section:
    said = dossier.page.description
    return Section(
        "Intended use",
        facts=(Fact.of("Intended use", said.intended_use), Fact.of("Limitations", said.limitations)),
    )


def _interface(dossier: Dossier) -> Section:
    signature = dossier.manifest.signature
    columns = ("name", "datatype", "shape", "columns stand for")
    return Section(
        "Inputs and outputs",
        ("A free dimension is -1.",),
        tables=(
            Grid("Inputs", columns, tuple(map(_spec, signature.inputs))),
            Grid("Outputs", columns, tuple(map(_spec, signature.outputs))),
        ),
    )


def _spec(spec: TensorSpec) -> tuple[str, ...]:
    name = f"{spec.name} (optional)" if spec.optional else spec.name
    return name, spec.datatype, str(list(spec.shape)), listed(spec.labels, _MOST_LABELS) or "-"


def _training(dossier: Dossier) -> Section:
    said, profile = dossier.page.description, dossier.manifest.profile
    measured = (
        "; ".join(f"{each.rows} rows of {each.input!r} with {len(each.features)} features" for each in profile.inputs)
        if profile
        else ""
    )
    lock = f"a lock file of {len(said.environment.splitlines())} lines, " if said.environment else ""
    code = " at ".join(each for each in (said.code_repository, said.code_commit) if each)
    settings = tuple((name, number(value)) for name, value in sorted(said.hyperparameters.items()))
    return Section(
        "Training",
        facts=(
            *_data_facts("Training data", said.training_data),
            Fact.of("Profile of the inputs", measured, "none was measured"),
            Fact.of("Trained", said.trained_at),
            Fact.of("Run", said.run_id),
            Fact.of("Code", f"{code}, with changes that nobody has committed" if said.code_dirty else code),
            Fact.of("Environment", f"{lock}SHA-256 {said.lock_digest}" if said.lock_digest else ""),
            Fact.of("Container image", said.image_digest),
        ),
        tables=(Grid("Hyperparameters", ("name", "value"), settings),) if settings else (),
    )


def _data_facts(name: str, data: DataReference | None) -> Iterable[Fact]:
    """What is said of a set of data."""
    if data is None:
        yield Fact.of(name, "")
        return
    version = f" {data.version}" if data.version else ""
    rows = f", {data.rows} rows" if data.rows is not None else ""
    yield Fact.of(name, f"{data.name or data.uri}{version}{rows}")
    yield Fact.of(f"{name}, where", data.uri)
    yield Fact.of(f"{name}, SHA-256", data.digest.removeprefix("sha256:"))


def _lineage(dossier: Dossier) -> Section:
    edges = tuple((each.relation, each.node) for each in dossier.made_of)
    return Section(
        "Lineage",
        facts=(Fact.of("Versions based on this one", listed(dossier.made_from_it), "none is known"),),
        tables=(Grid("What it was made of, as its description states", ("relation", "what"), edges),) if edges else (),
    )


def _caveats(dossier: Dossier) -> Section:
    """What the evidence does not show, derived from what is missing in it or speaks against the version."""
    said, notes = dossier.page.description, []
    known = {
        "limitations": said.limitations,
        "intended use": said.intended_use,
        "training data": said.training_data,
        "licence": said.licence,
        "owner": said.owner,
    }
    missing = [name for name, value in known.items() if not value]
    if missing:
        notes.append(f"Not stated by anybody: {', '.join(missing)}.")
    suites = dict.fromkeys(each.suite for each in dossier.evaluations)
    found = [each for suite in suites if (each := dossier.newest(suite)) is not None]
    if not found:
        notes.append("No evaluation of these bytes is recorded: how good it is, is a claim.")
    notes += [
        f"The newest evaluation of suite {each.suite} is {each.verdict}."
        for each in found
        if each.verdict is not Verdict.SUCCESSFUL
    ]
    if said.metrics and not found:
        notes.append("Its metrics were stated with its registration and measured by nobody else.")
    if dossier.manifest.profile is None:
        notes.append("It has no profile, so inputs unlike its training data are not noticed while it serves.")
    if dossier.manifest.runs_user_code:
        notes.append("Loading or asking it runs code that came with it.")
    return Section("Caveats", tuple(notes) or ("None that follows from the evidence.",))
