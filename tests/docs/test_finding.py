"""What docs/finding.md lists is what there is."""

from pages import page

from salver.registry.fields import FIELDS, OPEN_FIELDS
from salver.registry.impact import KINDS


def test_every_field_of_a_filter_is_documented():
    shown = page("finding.md")
    wanted = [name.replace("evaluation_data", "training_data") for name in FIELDS]
    wanted += [f"{name}.NAME" for name in OPEN_FIELDS]
    assert [name for name in wanted if f"`{name}`" not in shown] == []


def test_every_kind_of_subject_is_documented():
    shown = page("finding.md")
    assert [kind for kind in (*KINDS, "base") if f"`{kind}:" not in shown] == []
