"""README.md and docs/ say what the software is today: pages, links, messages, every command."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from runpy import run_path

import pytest
import typer

from builders import ROOT
from dayfold.cli import app
from pages import PAGES, SPEAKING, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATE = run_path(str(ROOT / "docs" / "generate.py"))
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_a_page_made_of_the_code_is_what_the_code_says_today(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == GENERATE["PAGES"][name](), "make docs"


def test_every_command_that_a_user_types_stands_in_the_readme():
    for name, command in COMMANDS.items():
        if not command.hidden:
            assert f"dayfold {name}" in README, name


def anchors(page: Path) -> set[str]:
    """The headings of a page, as a link names them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_every_page_is_linked_from_the_readme():
    for page in PAGES[1:]:
        assert f"](docs/{page.name}" in README, page.name


@cache
def messages() -> list[str]:
    """All texts of the source; \\0 stands for what is filled in."""
    found = []
    for path in sorted((ROOT / "src" / "dayfold").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.JoinedStr):
                filled = (
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                )
                found.append("".join(map(str, filled)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted() -> list[str]:
    """The messages that troubleshooting.md explains: the first cells of its tables."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return [cell for cell in cells if cell not in ("message", "---")]


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_explained_is_one_that_the_source_has(message):
    assert any(message in text for text in messages())


@pytest.mark.parametrize("page", SPEAKING, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_and_has_its_options(page):
    """Those of sentences; those of blocks are run too, by test_shown.py and test_tutorial.py."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`dayfold ([^`]+)`", text)
    for shown in commands(page):
        spans += re.findall(r"\bdayfold ([^&|;#>]+)", shown.command)
    for span in spans:
        name, *words = span.split()
        if not re.fullmatch("[a-z]+", name):
            continue  # `dayfold --help`, or a placeholder
        assert name in COMMANDS, f"{page.name}: dayfold {name}"
        known = {option for one in COMMANDS[name].params for option in one.opts} | {"--help"}
        for word in words:
            option = word.rstrip(".,;:)")
            assert not option.startswith("--") or option in known, f"{page.name}: {span}"


def test_every_extra_script_and_target_that_a_page_names_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in SPEAKING:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"dayfold\[(\w+)\]", text)) <= set(project["optional-dependencies"])
        for script in re.findall(r"`(benchmarks/[\w.]+)", text):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
        for target in re.findall(r"^make (\w+)|`make (\w+)`", text, re.MULTILINE):
            assert f"\n{''.join(target)}:" in makefile, f"{page.name}: make {target}"
