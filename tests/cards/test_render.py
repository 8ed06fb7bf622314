"""HTML and Markdown: valid, without scripts, and whatever anybody typed stays text."""

from __future__ import annotations

import html.parser

import pytest

from salver.cards.card import model_card
from salver.cards.document import Document, Fact, Grid, Section
from salver.cards.render import render

NASTY = '<script>alert(1)</script><img src=x onerror=alert(2)> & "q" | *b* [c](http://x) `d` ${e} {{ f }} # g'
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Reader(html.parser.HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def nasty(desk):
    version = desk.register()
    desk.describe(
        version, description=NASTY, owner=NASTY, metrics={NASTY: 1.0}, hyperparameters={NASTY: NASTY},
        training_data={"name": NASTY}, extra={"data_purpose": NASTY},
    )  # fmt: skip
    check = {"name": "slices", "verdict": NASTY, "reasons": [NASTY], "numbers": {"value": NASTY}}
    table = {"title": NASTY, "columns": [NASTY, "b"], "rows": [[NASTY, 1]]}
    desk.record(version, "release", reasons=[NASTY], checks=[check | {"tables": [table]}], environment={NASTY: NASTY})
    return model_card(desk.dossier(version))


def test_whatever_was_typed_stays_text_in_html(nasty) -> None:
    page = render(nasty, "html")
    reader = read(page)
    assert {"script", "img", "iframe", "a", "link"}.isdisjoint(reader.seen)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert NASTY in "".join(reader.text)
    assert page.count("{{ f }}") > 5


def test_html_is_one_page_that_loads_nothing_and_may_not(nasty) -> None:
    page = render(nasty, "html")
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "@media print" in page
    assert 'name="viewport"' in page
    for loading in ("url(", "@import"):
        assert loading not in page
    reader = read(page)
    assert reader.seen.count("h1") == 1
    assert reader.seen.count("title") == 1


def test_whatever_was_typed_stays_text_in_markdown(nasty) -> None:
    page = render(nasty, "md")
    assert "<script" not in page.replace("\\<script", "")
    assert "[c](" not in page.replace("\\[c\\](", "")
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert tables
    widths = []
    for line in tables:
        cells = line.replace("\\|", "").strip().strip("|").split("|")
        widths.append(len(cells))
        if set(line.strip()) == {"|", "-"}:
            assert widths[-1] == widths[-2], "the head is as wide as its rule"
    assert all(width > 0 for width in widths)


def test_lines_of_a_description_do_not_break_markdown() -> None:
    fact = Fact("Intended use", "one\n\n# two\n- three")
    page = render(Document("Model card", "a@1.0.0", 0.0, sections=(Section("Use", facts=(fact,)),)), "md")
    assert "- **Intended use:** one \\# two - three\n" in page


def test_a_question_ends_with_its_own_mark() -> None:
    facts = (Fact("Who made it?", "ann"), Fact("Owner", "ben"))
    page = render(Document("Data sheet", "a@1.0.0", 0.0, sections=(Section("Use", facts=facts),)), "md")
    assert "- **Who made it?** ann\n- **Owner:** ben\n" in page


def test_a_verdict_is_marked_only_where_it_is_one() -> None:
    grid = Grid("", ("what", "verdict"), (("failed", "failed"),))
    page = render(Document("Model card", "a@1.0.0", 0.0, sections=(Section("S", tables=(grid,)),)), "html")
    assert page.count('class="mark failed"') == 1


def test_what_would_steer_a_terminal_or_turn_a_line_is_written_out_in_both() -> None:
    steering = "a\x1b[2J\u202eb\x9b"
    section = Section(
        steering, (steering,), (Fact(steering, steering),), (Grid(steering, (steering,), ((steering,),)),)
    )
    document = Document("Model card", steering, 0.0, (steering,), sections=(section,))
    for form, shown in (("html", r"a\x1b[2J\u202eb\x9b"), ("md", r"a\\x1b\[2J\\u202eb\\x9b")):
        page = render(document, form)
        assert not {"\x1b", "\u202e", "\x9b"} & set(page)
        assert page.count(shown) >= 7
