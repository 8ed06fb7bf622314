"""Of a model card what the registry has recorded: evaluations, the way through the stages, deployments and use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from salver.cards.document import Cell, Fact, Grid, Section, listed, moment, number
from salver.registry.dossier import CheckSaid, Dossier, Findings
from salver.registry.evidence import Evaluation
from salver.registry.gates import OPERATIONAL_SUITE

__all__ = ["deployed", "evaluated", "way_here"]

_FAIRNESS: Final = "fairness"
_SLICES: Final = "slices"
_MOST_ROWS: Final = 20
_MOST_REASONS: Final = 20


def evaluated(dossier: Dossier) -> Iterator[Section]:
    """A section for the metrics that were stated, and one for the newest evaluation of each suite about these bytes."""
    stated = tuple((name, number(value)) for name, value in sorted(dossier.page.description.metrics.items()))
    notes = ["Evaluations count that were recorded about exactly these bytes, of each suite the newest."]
    suites = dict.fromkeys(each.suite for each in dossier.evaluations)
    found = [each for suite in suites if (each := dossier.newest(suite)) is not None]
    if not found:
        notes.append("None is recorded.")
    tables = []
    if found:
        rows = tuple(
            (
                each.suite,
                each.verdict.value,
                moment(each.recorded_s),
                each.recorded_by,
                each.evaluated_rows or "-",
                each.id,
            )
            for each in found
        )
        tables.append(Grid("", ("suite", "verdict", "recorded", "by", "rows", "evidence"), rows))
    if stated:
        tables.append(Grid("Metrics that were stated with its description", ("metric", "value"), stated))
    yield Section("Evaluation", tuple(notes), tables=tuple(tables))
    for each in found:
        yield _suite(each, dossier.findings.get(each.id, Findings()))


def _suite(evaluation: Evaluation, said: Findings) -> Section:
    facts = [Fact("Verdict", evaluation.verdict.value)]
    if evaluation.suite != OPERATIONAL_SUITE:
        facts += [
            Fact.of("Data", said.data),
            Fact.of("Data, SHA-256", evaluation.data_digest),
            Fact.of("Rows evaluated", evaluation.evaluated_rows or ""),
        ]
    if evaluation.against:
        facts.append(Fact("Compared with", evaluation.against))
    if said.relation:
        facts.append(Fact("How it stands to that", said.relation))
    if said.environment:
        facts.append(Fact("Environment", listed(f"{name} {value}" for name, value in said.environment.items())))
    # Of a comparison the checks only tell; what it found stands in its reasons.
    judged = _judged(() if said.relation else said.checks)
    tables = [grid for grid in (_metrics(said.checks), judged) if grid.rows]
    if not said.checks and evaluation.numbers:
        rows = tuple((name, number(value)) for name, value in sorted(evaluation.numbers.items()))
        tables.append(Grid("Measured", ("what", "value"), rows))
    tables += [grid for check in said.checks if check.name in (_SLICES, _FAIRNESS) for grid in _tables(check)]
    heading = "How it bears load" if evaluation.suite == OPERATIONAL_SUITE else f"Suite {evaluation.suite}"
    return Section(heading, said.reasons[:_MOST_REASONS], tuple(facts), tuple(tables))


def _metrics(checks: tuple[CheckSaid, ...]) -> Grid:
    """Whatever was measured with a value, and its interval where it has one."""
    rows: list[tuple[Cell, ...]] = []
    for check in checks:
        if "value" in check.numbers:
            numbers = check.numbers
            value, low, high = (number(numbers.get(name)) for name in ("value", "low", "high"))
            bound = numbers.get("bound", numbers.get("at_most"))
            rows.append((check.name, value, f"{low} to {high}" if low != "-" or high != "-" else "-", number(bound)))
    return Grid("Measured", ("what", "value", "interval", "bound"), tuple(rows))


def _judged(checks: tuple[CheckSaid, ...]) -> Grid:
    rows = tuple((check.name, check.verdict or "-", check.role or "-", "; ".join(check.reasons)) for check in checks)
    return Grid("Judged", ("check", "verdict", "role", "why"), rows)


def _tables(check: CheckSaid) -> Iterator[Grid]:
    for table in check.tables:
        more = f" (the first {_MOST_ROWS} of {len(table.rows)})" if len(table.rows) > _MOST_ROWS else ""
        yield Grid(f"{table.title}{more}", table.columns, table.rows[:_MOST_ROWS])


def way_here(dossier: Dossier) -> Section:
    """The stages it went through: who decided, by which gates, and who agreed."""
    page, tables = dossier.page, []
    rows: list[tuple[Cell, ...]] = []
    for each in dossier.decisions:
        outcome = "moved" if each.moved else "refused"
        rows.append(
            (
                moment(each.at_s),
                f"{each.source} to {each.target}",
                f"{outcome}, past its gates" if each.emergency else outcome,
                each.verdict.value,
                each.actor,
                listed(
                    dict.fromkeys(
                        evidence.actor
                        for gate in each.gates
                        for evidence in gate.evidence
                        if evidence.kind == "approval"
                    )
                )
                or "-",
                each.why or "-",
            )
        )
    if rows:
        columns = ("when", "way", "outcome", "gates", "by", "approved by", "why")
        tables.append(Grid("Decisions, the newest first", columns, tuple(rows)))
    agreed = tuple(
        (each.approved_by, each.target, moment(each.approved_s), each.why or "-") for each in dossier.approvals
    )
    if agreed:
        tables.append(Grid("Approvals that hold now", ("who", "for", "when", "why"), agreed))
    return Section(
        "The way here",
        facts=(
            Fact("Stage", f"{page.stage} since {moment(page.stage_since_s)}"),
            Fact("Promoted past its gates", "yes, once, in an emergency" if page.emergency else "never"),
            Fact.of("Held as evidence", page.held, "no"),
            Fact.of("Revoked", dossier.revoked, "no"),
            Fact.of("Deleted", page.deleted, "no"),
            Fact.of("Proposed for the archive", dossier.retirement, "no"),
        ),
        tables=tuple(tables),
    )


def deployed(dossier: Dossier) -> Section:
    """Where it serves and served, and how much it was asked; whom by is not said."""
    now = {each.endpoint for each in dossier.deployments}
    rows = tuple(
        (each.endpoint, moment(each.since_s), moment(each.until_s) or "now", each.deployed_by, number(each.requests))
        for each in dossier.served
    )
    requests, clients = sum(each.requests for each in dossier.uses), {each.client for each in dossier.uses}
    last_s = max((each.last_s for each in dossier.uses), default=None)
    use = f"{requests} requests of {len(clients)} clients, the last {moment(last_s)}" if dossier.uses else ""
    return Section(
        "Deployments and use",
        facts=(
            Fact.of("Deployed as", listed(sorted(now)), "nothing"),
            Fact.of("Asked", use, "never, as far as is counted"),
        ),
        tables=(Grid("Where it served", ("endpoint", "from", "until", "by", "requests"), rows),) if rows else (),
    )
