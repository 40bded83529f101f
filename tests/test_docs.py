"""README.md and docs/ say what the software is today: pages, links, messages, every command."""

import ast
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from runpy import run_path

import pytest
import typer
from dvc.cli.parser import get_main_parser

from builders import ROOT
from dayfold.cli import app
from pages import PAGES, SPEAKING, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATE = run_path(str(ROOT / "docs" / "generate.py"))
COMMANDS = typer.main.get_command(app).commands

# What other tools are asked to do in the pages, and why it is not tried here. Everything else is
# held to the parser of its own tool.
NOT_TRIED = {
    "git": "its options are git's; those of the tutorial are run",
    "cd": "a place",
    "mv": "of files that a reader has",
    "sed": "run in the tutorial",
    "source": "the shell's own",
    "rsync": "needs a second machine",
}


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


def simple(command: str) -> Iterable[list[str]]:
    """The words of each simple command in a line of shell, without comments and redirections."""
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    words.commenters = "#"
    one: list[str] = []
    for word in words:
        if set(word) <= set("&|;") and word:
            yield one
            one = []
        else:
            one.append(word)
    yield one


def without_environment(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words[: words.index(">")] if ">" in words else words


def as_dayfold(words: list[str]) -> None:
    name, *rest = words
    assert name in COMMANDS, f"no command {name}"
    COMMANDS[name].make_context(name, rest, obj=None)


def as_dvc(words: list[str]) -> None:
    get_main_parser().parse_args(words)


def as_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        assert "=" in word or re.search(rf"^{word}:", makefile, re.MULTILINE), word


def as_python(words: list[str]) -> None:
    assert words[0] == "make_images.py" or (ROOT / words[0]).is_file(), words[0]


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "dayfold": as_dayfold,
    "dvc": as_dvc,
    "make": as_make,
    "python": as_python,
}


class MisusedError(Exception):
    """A tool would not understand its words."""


def check(command: str) -> None:
    """Raise MisusedError unless every tool of a line of shell would understand its words."""
    # A line of a crontab begins with its five fields of time.
    command = re.sub(r"^[\d*]+ [\d*]+ [\d*]+ [\d*]+ [\d*]+ +", "", command)
    for words in simple(command):
        tool, *rest = without_environment(words)
        if tool in CHECKS:
            try:
                CHECKS[tool](rest)
            # Each parser has its own way to end.
            except (Exception, SystemExit) as error:
                raise MisusedError(f"{tool}: {error}") from error
        elif tool not in NOT_TRIED:
            raise MisusedError(f"{tool} is neither checked nor excused")


@pytest.mark.parametrize("page", SPEAKING, ids=lambda page: page.name)
def test_every_command_shown_is_one_that_its_tool_understands(page):
    wrong = []
    for shown in commands(page):
        try:
            check(shown.command)
        except MisusedError as error:
            wrong.append(f"{page.name}:{shown.line}: {shown.command}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", SPEAKING, ids=lambda page: page.name)
def test_every_command_in_a_sentence_exists_and_has_its_options(page):
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`dayfold ([^`]+)`", text):
        name, *words = " ".join(span.split()).split(" ")
        if not re.fullmatch("[a-z]+", name):
            continue  # `dayfold --help`, or a placeholder
        assert name in COMMANDS, f"{page.name}: dayfold {name}"
        known = {option for one in COMMANDS[name].params for option in one.opts} | {"--help"}
        for word in words:
            option = word.rstrip(".,;:)")
            assert not option.startswith("--") or option in known, f"{page.name}: {span}"


def test_every_extra_and_script_that_a_page_names_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in SPEAKING:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"dayfold\[(\w+)\]", text)) <= set(project["optional-dependencies"])
        for script in re.findall(r"`(benchmarks/[\w.]+)", text):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"


@pytest.mark.parametrize(
    "command",
    [
        "dayfold nothing",
        "dayfold seal --now",
        "cd scans && dayfold run",
        "dvc repro --sideways",
        "make nothing",
        "curl example.org",
    ],
)
def test_a_command_that_is_wrong_is_found(command):
    with pytest.raises(MisusedError):
        check(command)
