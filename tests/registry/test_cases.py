"""Regression cases: kept once, on the journal, removed only by whoever may deploy."""

from __future__ import annotations

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.registry.cases import Case, Cases, Equal, InRange, Labelled, Refused
from salver.security.access import Principal, PrincipalKind, Role

REQUEST = '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'


def somebody(role: Role) -> Principal:
    return Principal(f"a-{role}", role, "default", PrincipalKind.TOKEN)


DEVELOPER, OPERATOR = somebody(Role.DEVELOPER), somebody(Role.OPERATOR)


@pytest.fixture
def cases(database, journal, clock, catalog, admin, draft) -> Cases:
    catalog.add_version(admin, draft())
    return Cases(database, journal, clock)


def case(*expect, request=REQUEST, source="incident 12") -> Case:
    return Case(request, expect or (Labelled(label=1),), source)


def test_a_case_comes_back_as_it_was_kept(cases) -> None:
    given = case(
        Labelled(output="label", label="malignant"),
        InRange(output="p", column="benign", at_most=0.5),
        Equal(values=[[1.0, 2.0]], tolerance=0.1),
        request="{not even JSON: é",
    )
    assert cases.add(DEVELOPER, "digits", given).created
    known = cases.of("digits")
    assert [each.case for each in known] == [given]
    assert (known[0].recorded_by, known[0].model) == ("a-developer", "digits")


def test_the_same_case_again_is_the_same_case_whatever_it_came_from(cases, journal) -> None:
    first = cases.add(DEVELOPER, "digits", case())
    before = journal.head()
    again = cases.add(OPERATOR, "digits", case(source="incident 13"))
    assert (again.created, again.case) == (False, first.case)
    assert journal.head() == before


def test_the_journal_has_who_added_and_removed_a_case_and_not_its_input(cases, journal) -> None:
    known = cases.add(DEVELOPER, "digits", case()).case
    cases.remove(OPERATOR, "digits", known.id)
    added, removed = journal.records(after=journal.head()[0] - 2)
    assert [(each.action, each.actor, each.subject) for each in (added, removed)] == [
        ("add_case", "a-developer", "digits"),
        ("remove_case", "a-operator", "digits"),
    ]
    assert added.after == removed.before != ""
    assert "inputs" not in msgspec.json.encode([added, removed]).decode()
    assert cases.of("digits") == ()


def test_who_may_not_deploy_removes_no_case(cases) -> None:
    known = cases.add(DEVELOPER, "digits", case()).case
    with pytest.raises(SalverError, match="may not deploy"):
        cases.remove(DEVELOPER, "digits", known.id)
    with pytest.raises(SalverError, match="may not record evaluations and cases"):
        cases.add(somebody(Role.PREDICTOR), "digits", case())
    assert len(cases.of("digits")) == 1


def test_pages_of_cases_hold_each_once(cases) -> None:
    ids = {cases.add(DEVELOPER, "digits", case(Labelled(label=number))).case.id for number in range(7)}
    found, after = [], ""
    while page := cases.of("digits", after, 3):
        found += [each.id for each in page]
        after = found[-1]
    assert (sorted(ids), len(found)) == (found, 7)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Case(REQUEST, (), "x"), "0 expectations"),
        (case(source=" "), "does not say what it comes from"),
        (case(Refused(), Labelled(label=1)), "a refusal and something else"),
        (case(Refused("INTERNAL")), "the refusal 'INTERNAL'"),
        (case(InRange()), "no ends"),
        (case(InRange(at_least=2.0, at_most=1.0)), "the wrong way round"),
        (case(Equal(values=1, tolerance=-1.0)), "its tolerance is -1"),
        (case(request="x" * 300_000), "300000 bytes"),
    ],
)
def test_a_case_that_cannot_be_asked_is_refused(cases, wrong, said) -> None:
    with pytest.raises(SalverError, match=said) as refused:
        cases.add(DEVELOPER, "digits", wrong)
    assert refused.value.code == "INVALID_PARAMETER"
    assert cases.of("digits") == ()


def test_an_unknown_model_and_an_unknown_case_are_not_found(cases) -> None:
    for act in (lambda: cases.add(DEVELOPER, "nobody", case()), lambda: cases.remove(OPERATOR, "digits", "0")):
        with pytest.raises(SalverError) as refused:
            act()
        assert refused.value.code == "NOT_FOUND"
