"""README.md and docs/ say what the software is today: commands, params, the tree."""

import re
from runpy import run_path

import pytest
import typer

from builders import ROOT
from dayfold.cli import app

README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATE = run_path(str(ROOT / "docs" / "generate.py"))


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_a_page_made_of_the_code_is_what_the_code_says_today(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == GENERATE["PAGES"][name](), "make docs"


def test_every_command_that_a_user_types_stands_in_the_readme():
    commands = typer.main.get_command(app).commands
    stages = {"snapshot", "weights", "replay", "train", "evaluate", "curve"}
    for name in set(commands) - stages - {"demo"}:
        assert f"dayfold {name}" in README, name


def test_no_command_in_the_readme_is_made_up():
    commands = typer.main.get_command(app).commands
    for name in re.findall(r"(?:^|`)\s*dayfold ([a-z]+)", README, re.MULTILINE):
        assert name in commands, name
