import ast
import importlib
import re
import tomllib
from urllib.parse import unquote

import pytest
from pages import PAGES, ROOT, blocks, page, prose, rows, section

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def anchors(path):
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(path):
    broken = []
    for target in LINK.findall(prose(path)):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_block_of_code_is_of_its_language(path):
    for block in blocks(path):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            assert block.language == ""


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_no_page_is_too_long_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_the_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in readme] == []


def test_every_function_on_the_path_of_a_request_exists():
    named = re.findall(r"`(salver\.[\w.]+)`", section(page("architecture.md"), "## The path of a request"))
    assert len(named) > 15
    for name in named:
        found, rest = importlib.import_module("salver"), name.split(".")[1:]
        for depth, part in enumerate(rest):
            if not hasattr(found, part):
                importlib.import_module(".".join(["salver", *rest[: depth + 1]]))
            found = getattr(found, part)
        assert callable(found), name


def test_the_storeys_are_those_the_linter_holds():
    text = (ROOT / ".importlinter").read_text(encoding="utf-8")
    held = re.search(r"layers =\n((?:    .+\n)+)", text)[1]
    shown = next(block.text for block in blocks(ROOT / "docs" / "architecture.md") if block.text.startswith("__main__"))
    assert [line.split() for line in shown.splitlines()] == [line.split() for line in held.splitlines()]


def test_every_room_stands_in_the_plan_of_the_house():
    plan = blocks(ROOT / "docs" / "architecture.md")[0].text
    package = ROOT / "src" / "salver"
    rooms = [f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    assert [name for name in [*rooms, *files] if name not in plan] == []


def test_the_glossary_has_the_twelve_nouns():
    nouns = [row[0] for row in rows(section(page("glossary.md"), "## The twelve nouns"))]
    assert nouns == [
        *("Request / Response", "Model", "Version", "Runtime", "Replica", "Deployment"),
        *("Endpoint", "Route", "Metric", "Verdict", "Policy", "Service"),
    ]


def test_the_page_on_performance_has_a_place_for_what_is_measured():
    text = page("performance.md")
    assert 0 < text.index("<!-- measured: begin -->") < text.index("<!-- measured: end -->")


def test_the_example_declaration_in_the_page_on_models_is_the_example():
    shown = next(block.text for block in blocks(ROOT / "docs" / "models.md") if block.language == "toml")
    file = ROOT / "examples" / "python_model" / "language" / "salver-model.toml"
    assert shown == file.read_text(encoding="utf-8")
