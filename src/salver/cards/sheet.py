"""The data sheet of a version's training data, or of a file of rows (Gebru et al. 2018, Datasheets for Datasets).

The questions are the paper's, shortened. What can be counted is answered by the profile of the version and by the file;
what only people know is answered by what they have stated, and else said not to be stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from salver.cards.document import Cell, Document, Fact, Grid, Section, listed, number
from salver.cards.drift import Drift, measure_drift
from salver.cards.table_facts import QUANTILES, Array, ColumnFacts, TableFacts
from salver.protocol.description import Description
from salver.registry.pages import VersionPage

__all__ = ["ANSWERS", "data_sheet"]

ANSWERS: Final = {
    "data_purpose": ("Motivation", "For what purpose was it created?"),
    "data_creators": ("Motivation", "Who created it, and for whom?"),
    "data_funding": ("Motivation", "Who paid for it?"),
    "data_instances": ("Composition", "What does a row stand for?"),
    "data_sensitive": ("Composition", "Does it hold confidential or personal data, or name groups of people?"),
    "data_collection": ("Collection", "How was it collected, and by whom?"),
    "data_sampling": ("Collection", "Is it a sample, and how was it drawn?"),
    "data_period": ("Collection", "Over what time?"),
    "data_consent": ("Collection", "Do those whom it is about know, and did they agree?"),
    "data_review": ("Collection", "Was its collection reviewed?"),
    "data_cleaning": ("Preprocessing, cleaning, labelling", "What was done to it before it was used?"),
    "data_raw": ("Preprocessing, cleaning, labelling", "Is the raw data kept?"),
    "data_uses": ("Uses", "What else could it be used for?"),
    "data_not_for": ("Uses", "What should it not be used for?"),
    "data_distribution": ("Distribution", "Who may have it, and how?"),
    "data_licence": ("Distribution", "Under what licence?"),
    "data_maintainer": ("Maintenance", "Who maintains it?"),
    "data_updates": ("Maintenance", "Will it be updated, and how does one learn of it?"),
}
"""Keys under `extra` of a description that answer a question which no number does."""
_MOST_FEATURES: Final = 200


def data_sheet(
    page: VersionPage | None,
    facts: TableFacts | None,
    at_s: float,
    columns: Mapping[str, Array] | None = None,
) -> Document:
    """The sheet of a version's training data, of a table, or of a table held against what the version was trained on.

    `columns` are those that `facts` were measured on. REQUIRES a page or facts.
    """
    title = page.manifest.reference if page else ""
    if facts is not None:
        title = f"{facts.name}, against {title}" if title else facts.name
    said = page.description if page else Description()
    answers = said.extra
    sections = {heading: Section(heading) for heading, _ in ANSWERS.values()}
    asked: dict[str, list[Fact]] = {heading: [] for heading in sections}
    for key, (heading, question) in ANSWERS.items():
        asked[heading].append(Fact.of(question, answers.get(key, "")))
    asked["Composition"] += _composition(page, facts)
    asked["Uses"].insert(0, _used_for(page, facts))
    asked["Maintenance"] += _identity(said, facts)
    tables = {"Composition": tuple(_tables(page, facts, columns))}
    return Document(
        "Data sheet",
        title,
        at_s,
        _warnings(said, facts),
        sections=tuple(
            Section(heading, _notes(heading, page), tuple(asked[heading]), tables.get(heading, ()))
            for heading in sections
        ),
    )


def _notes(heading: str, page: VersionPage | None) -> tuple[str, ...]:
    if heading != "Motivation" or page is None:
        return ()
    return (
        "Answers of people come from the description of the version: "
        f"salver describe {page.manifest.reference} --set extra.data_purpose=...",
    )


def _warnings(said: Description, facts: TableFacts | None) -> tuple[str, ...]:
    if facts is None or said.training_data is None or not said.training_data.digest:
        return ()
    if said.training_data.digest.removeprefix("sha256:").lower() == facts.digest:
        return ()
    return ("This file is not the one that the version says it was trained on: the digests differ.",)


def _composition(page: VersionPage | None, facts: TableFacts | None) -> Iterator[Fact]:
    profile = page.manifest.profile if page else None
    stated = page.description.training_data if page else None
    rows = stated.rows if stated else None
    if facts is not None:
        yield Fact("How many rows are there?", f"{facts.rows} in {facts.name}")
        yield Fact("What does a row consist of?", f"{len(facts.columns)} columns, below")
        holes = [each for each in facts.columns if each.missing]
        cells = sum(each.missing for each in holes)
        yield Fact(
            "Is anything missing?",
            f"{cells} cells, in {listed(each.name for each in holes)}" if holes else "no cell is empty",
        )
        yield Fact("Are there duplicates?", f"{facts.duplicates} rows are like another in every column")
        yield _balance(facts)
        return
    measured = max((each.rows for each in profile.inputs), default=0) if profile else 0
    counted = f"{rows}, as stated" if rows is not None else f"{measured}, as profiled" if measured else ""
    yield Fact.of("How many rows are there?", counted)
    features = sum(len(each.features) for each in profile.inputs) if profile else 0
    yield Fact.of("What does a row consist of?", f"{features} features, below" if features else "")
    missing = sum(each.missing for one in profile.inputs for each in one.features) if profile else 0
    yield Fact.of("Is anything missing?", f"{missing} values" if profile else "")
    yield Fact.of("Are there duplicates?", "")
    yield Fact.of("Is there a label, and how is it spread?", "")


def _balance(facts: TableFacts) -> Fact:
    question, target = "Is there a label, and how is it spread?", facts.column(facts.target)
    if target is None:
        return Fact.of(question, "")
    if target.categories:
        shares = (f"{name}: {count} ({count / facts.rows:.1%})" for name, count in target.categories)
        return Fact(question, f"{target.name} is {listed(shares)}")
    return Fact(question, f"{target.name}, {number(target.low)} to {number(target.high)}, mean {number(target.mean)}")


def _used_for(page: VersionPage | None, facts: TableFacts | None) -> Fact:
    question = "What has it been used for?"
    if page is None:
        return Fact.of(question, "")
    data = page.description.training_data
    same = facts is None or (data is not None and data.digest.removeprefix("sha256:").lower() == facts.digest)
    return Fact.of(question, f"to train {page.manifest.reference}" if same else "")


def _identity(said: Description, facts: TableFacts | None) -> Iterator[Fact]:
    data = said.training_data
    if facts is not None:
        yield Fact("SHA-256 of this file", facts.digest)
    yield Fact.of("What is it called?", data.name if data else "")
    yield Fact.of("Which version of it?", data.version if data else "")
    yield Fact.of("Where is it?", data.uri if data else "")
    yield Fact.of("SHA-256, as stated", data.digest.removeprefix("sha256:") if data else "")


def _tables(page: VersionPage | None, facts: TableFacts | None, columns: Mapping[str, Array] | None) -> Iterator[Grid]:
    profile = page.manifest.profile if page else None
    if facts is not None:
        yield Grid("Columns", ("column", "type", "missing", "different values"), tuple(map(_plain, facts.columns)))
        numeric = tuple(_numeric(each) for each in facts.columns if each.low is not None)
        if numeric:
            heads = tuple(f"{quantile:.0%}" for quantile in QUANTILES)
            yield Grid("Numbers", ("column", "least", *heads, "greatest", "mean", "deviation"), numeric)
        few = tuple(
            (each.name, name, count, f"{count / facts.rows:.1%}")
            for each in facts.columns
            for name, count in each.categories
        )
        if few:
            yield Grid("Values that rows share", ("column", "value", "rows", "share"), few)
    if profile is None or page is None:
        return
    if columns is not None and facts is not None:
        drifted = measure_drift(profile, page.manifest.signature, columns, facts.target)
        yield _drift(drifted)
        return
    labels = {spec.name: spec.labels for spec in page.manifest.signature.inputs}
    heads = ("input", "feature", "least", "greatest", "mean", "deviation", "missing")
    rows: list[tuple[Cell, ...]] = []
    for one in profile.inputs:
        names = labels.get(one.input, ())
        for index, each in enumerate(one.features[:_MOST_FEATURES]):
            name = names[index] if index < len(names) else str(index)
            rows.append((one.input, name, each.low, each.high, each.mean, each.std, each.missing))
    yield Grid("Features of the training rows, as profiled", heads, tuple(rows))


def _plain(each: ColumnFacts) -> tuple[Cell, ...]:
    return each.name, each.kind, each.missing, each.distinct


def _numeric(each: ColumnFacts) -> tuple[Cell, ...]:
    return each.name, each.low, *each.quantiles, each.high, each.mean, each.std


def _drift(drifted: tuple[Drift, ...]) -> Grid:
    if not drifted:
        return Grid("Against the profile: the columns of its features cannot be told", ("features",), ())
    count = sum(each.differs for each in drifted)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            each.feature,
            each.trained_mean,
            each.mean,
            each.shift,
            f"{each.outside_ratio:.1%}",
            f"{each.trained_missing_ratio:.1%}",
            f"{each.missing_ratio:.1%}",
            each.adjusted_p,
            "differs" if each.differs else "-",
        )
        for each in sorted(drifted, key=lambda each: -abs(each.shift))[:_MOST_FEATURES]
    )
    heads = ("feature", "mean, trained", "mean", "shift in deviations", "outside the range", "missing, trained")
    title = f"Against the profile of the training rows: {count} of {len(drifted)} features differ"
    return Grid(title, (*heads, "missing", "adjusted p", ""), rows)
