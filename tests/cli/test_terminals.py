from __future__ import annotations

from salver.cli.context import printable
from salver.cli.tables import table


def test_what_anybody_has_typed_does_nothing_to_the_terminal_of_who_reads_it() -> None:
    assert printable("a\x1b[2J\x07\x9b\x7f\rb") == r"a\x1b[2J\x07\x9b\x7f\rb"
    assert printable("exe.\u202egpj \u2066x") == r"exe.\u202egpj \u2066x"
    assert printable("lines\n\tstay, and so do ü, 你 and 👩\u200d🔬") == "lines\n\tstay, and so do ü, 你 and 👩\u200d🔬"
    assert printable("\udcff") == r"\udcff"


def test_a_cell_of_a_table_makes_no_lines_of_its_own() -> None:
    assert table(["why", "who"], [["x\n2026  admin", "ann"]]).splitlines()[1:] == ["x 2026  admin  ann"]
