"""The sections about service: bounded settings, files beside the suite, cases without being asked for."""

from __future__ import annotations

import pytest

from salver.evaluation.service_parts import service_checks
from salver.evaluation.subject.given import Given
from salver.evaluation.suites.scripts import read_suite
from salver.protocol.errors import SalverError
from salver.registry.cases import KnownCase, Refused

HEAD = '[suite]\nname = "s"\ntarget = "y"\n'


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("[skew]\npaths = []\n", "skew.paths is empty"),
        ("[skew]\nrows = 0\n", "skew.rows is 0"),
        ('[skew]\npaths = ["smoke"]\n', "smoke"),
        ("[data]\nlevel = 0.9\n", "data.level is 0.9"),
        ("[infrastructure]\nmemory_bytes = 1\n", "infrastructure.memory_bytes is 1"),
        ('[[contract]]\ntraffic = "t"\nlabels_agree_at_least = 2\n', "labels_agree_at_least is 2"),
        ('[[contract]]\ntraffic = "t"\n[[contract]]\ntraffic = "u"\n', "'contract' stands twice"),
        ("[cases]\nrequired = -1\n", "cases.required is -1"),
        ("[data]\nskema = 1\n", "did you mean 'schema'"),
    ],
)
def test_what_a_section_cannot_say_is_refused(tmp_path, sections, said) -> None:
    (tmp_path / "s.toml").write_text(HEAD + sections)
    with pytest.raises(SalverError) as refused:
        read_suite(tmp_path / "s.toml")
    assert (refused.value.code, said in str(refused.value)) == ("INVALID_SETTING", True), str(refused.value)


def test_files_are_found_beside_the_suite(tmp_path) -> None:
    (tmp_path / "s.toml").write_text(
        HEAD + '[[contract]]\ntraffic = "t.jsonl"\n[skew]\nscript = "b.py"\n'
        '[data]\nreference = "r.csv"\nschema = "/etc/schema.yaml"\n'
    )
    suite = read_suite(tmp_path / "s.toml").suite
    assert [suite.contract[0].traffic, suite.skew.script, suite.data.reference, suite.data.schema] == [
        str(tmp_path / "t.jsonl"), str(tmp_path / "b.py"), str(tmp_path / "r.csv"), "/etc/schema.yaml",
    ]  # fmt: skip


def test_cases_are_asked_where_there_are_some_and_nobody_says_otherwise(tmp_path) -> None:
    known = Given(cases=(KnownCase("c", "m", "{}", (Refused(),), "x", 0.0, "me"),))
    for sections, given, names in (
        ("", known, ["cases"]),
        ("", Given(), []),
        ("[cases]\nenabled = false\n", known, []),
        ("[cases]\nrequired = 1\n", Given(), ["cases"]),
        ('[skew]\n[data]\n[infrastructure]\n[[contract]]\ntraffic = "t"\n', known,
         ["cases", "contract", "skew", "data", "infrastructure"]),
    ):  # fmt: skip
        (tmp_path / "s.toml").write_text(HEAD + sections)
        assert [each.name for each in service_checks(read_suite(tmp_path / "s.toml").suite, given)] == names
