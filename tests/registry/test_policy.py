from __future__ import annotations

import pytest
from tests.registry.promoting import Promoting

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.registry.policy import Policy, parse_policy, warnings_of

WHOLE = """
[[model]]
match = "credit-*"
most_in_production = 2
on_replaced = "archived"
deploy_from = ["staging", "production"]
emergency_roles = ["operator"]

[[transition]]
models = "credit-*"
to = "production"
from = ["staging"]
[[transition.gate]]
kind = "approvals"
count = 2
[[transition.gate]]
kind = "checklist"
name = "readiness"

[[transition]]
to = "production"
[[transition.gate]]
kind = "evaluation"
suite = "release"
within_days = 7

[[retirement]]
name = "old"
older_than_days = 365
"""


@pytest.fixture
def house(home, database) -> Promoting:
    return Promoting(home, database)


def test_all_rules_that_match_hold_together() -> None:
    policy = parse_policy(WHOLE)
    kinds = [type(gate).__name__ for gate in policy.gates("credit-de", (Stage.STAGING, Stage.PRODUCTION))]
    assert kinds == ["ApprovalsGate", "ChecklistGate", "EvaluationGate"]
    assert len(policy.gates("credit-de", (Stage.SHADOW, Stage.PRODUCTION))) == 1
    assert len(policy.gates("digits", (Stage.STAGING, Stage.PRODUCTION))) == 1
    assert policy.gates("credit-de", (Stage.VALIDATION, Stage.STAGING)) == ()


def test_the_first_rule_for_a_name_says_how_its_models_are_treated() -> None:
    policy = parse_policy(WHOLE)
    assert policy.rule_for("credit-de").most_in_production == 2
    assert policy.rule_for("digits").most_in_production == 1
    assert Policy().rule_for("digits").on_replaced == "staging"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[transition", "it is no TOML"),
        ("[[transitions]]", "unknown field `transitions`"),
        ('[[transition]]\nto = "live"', "Invalid enum value 'live'"),
        ('[[transition]]\nto = "production"\nfrom = ["development"]', "no version goes from development to production"),
        ('[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "luck"', "Invalid value 'luck'"),
        ('[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "evaluation"\nsiute = "x"', "`siute`"),
        ('[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "metric"\nmetric = "x"', "has no bound"),
        (
            '[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "approvals"\ncount = 0',
            "asks for 0 approvals",
        ),
        ("[[model]]\nmost_in_production = -1", "is -1; 0 is for any number"),
        ('[[model]]\ndeploy_from = ["archived"]', "names archived, whose versions are never deployed"),
        ('[[model]]\non_replaced = "gone"', "Invalid enum value 'gone'"),
        ('[[retirement]]\nname = "x"', "has no condition"),
        ('[[retirement]]\nname = "x"\nolder_than_days = -1', "older_than_days of retirement 'x' is -1"),
        ('[[retirement]]\nname = "x"\nolder_than_days = 1\nstages = ["rejected"]', "from where nothing is archived"),
        (2 * '[[retirement]]\nname = "x"\nolder_than_days = 1\n', "two retirement rules are called 'x'"),
        ("#" * 300_000, "it has more than 262144 bytes"),
    ],
)
def test_a_wrong_policy_is_refused_naming_what_is_wrong(text, words) -> None:
    with pytest.raises(SalverError) as raised:
        parse_policy(text)
    assert raised.value.code == "INVALID_SETTING"
    assert words in raised.value.message


def test_the_policy_in_force_is_the_last_one_on_the_journal(house) -> None:
    assert house.records.policies.in_force().seq == 0
    first = house.records.policies.set(house.root, WHOLE)
    assert (first.text, first.set_by) == (WHOLE, "root")
    assert house.records.policies.set(house.root, WHOLE) == first
    second = house.records.policies.set(house.root, "")
    assert house.records.policies.in_force() == second
    assert second.seq > first.seq
    record = house.records.journal.records(10)[-1]
    assert record.details["digest_before"] == first.digest
    assert record.before != record.after
    assert house.actions() == ["set_policy", "set_policy"]


def test_a_wrong_policy_and_a_wrong_role_change_nothing(house) -> None:
    house.policy(WHOLE)
    with pytest.raises(SalverError):
        house.records.policies.set(house.root, "[[transition")
    with pytest.raises(SalverError) as raised:
        house.records.policies.set(house.ann, "")
    assert raised.value.code == "PERMISSION_DENIED"
    assert house.records.policies.in_force().text == WHOLE


def test_an_endpoint_called_policy_is_no_policy(house, draft) -> None:
    from salver.protocol.tables import DeploymentSpec

    house.policy(WHOLE)
    house.register(draft())
    house.policy("")
    house.records.deployments.deploy(house.ann, DeploymentSpec("policy", "digits", "1.0.0"))
    assert house.records.policies.in_force().text == ""


def test_a_gate_that_the_authors_own_word_opens_is_warned_of(house) -> None:
    text = """
    [[transition]]
    to = "production"
    [[transition.gate]]
    kind = "evaluation"
    suite = "release"
    [[transition.gate]]
    kind = "metric"
    metric = "f1"
    at_least = 0.5
    roles = ["developer", "operator"]
    [[transition.gate]]
    kind = "operational"
    [[transition.gate]]
    kind = "evaluation"
    suite = "nightly"
    recorded_by = ["ci-*"]
    [[transition.gate]]
    kind = "operational"
    roles = ["operator"]
    [[transition.gate]]
    kind = "approvals"
    """
    said = warnings_of(parse_policy(text))
    assert [each.partition(" before")[0] for each in said] == [
        "the gate evaluation 'release'",
        "the gate metric 'f1'",
        "the gate operational",
    ]
    assert "whoever registered the version; give roles" in said[0]
    assert house.records.policies.set(house.root, text).warnings == said
    assert house.records.policies.set(house.root, text).warnings == said
    assert house.records.policies.in_force().warnings == said


STAGED = """
[[model]]
match = "{match}"
deploy_from = ["validation", "staging", "production"]
[[transition]]
to = "production"
models = "{models}"
[[transition.gate]]
kind = "approvals"
"""


@pytest.mark.parametrize(
    ("match", "models", "warned"),
    [
        ("digits", "digits", True),
        ("digits", "*", True),
        ("credit-*", "credit-de", True),
        ("credit-*", "*-de", True),
        ("credit-*", "cre*", True),
        ("digits", "iris", False),
        ("credit-*", "debit-*", False),
        ("*-at", "*-de", False),
    ],
)
def test_to_deploy_from_stages_before_a_gate_is_allowed_and_warned_of(match, models, warned) -> None:
    said = warnings_of(parse_policy(STAGED.format(match=match, models=models)))
    assert len(said) == warned
    assert all(f"deploy_from of '{match}' names validation and staging: such versions are deployed" in s for s in said)


def test_where_an_earlier_rule_takes_the_gated_models_a_later_one_is_not_warned_of() -> None:
    text = STAGED.format(match="*", models="credit-*")
    assert len(warnings_of(parse_policy(text))) == 1
    assert warnings_of(parse_policy('[[model]]\nmatch = "credit-*"\n' + text)) == ()
