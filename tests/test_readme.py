"""README.md says what the software is today: params, tree, commands."""

import ast
import re

import typer

from builders import ROOT
from dayfold.cli import app

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#]*?))? +# (?P<comment>.+)$")


def params_table() -> list[str]:
    """A row a key of params.yaml: its dotted name, its default, its comment."""
    rows = ["| param | default | |", "| --- | --- | --- |"]
    sections: list[str] = []
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        if found := LINE.match(line):
            depth = len(found["indent"]) // 2
            sections = [*sections[:depth], found["key"]]
            name, value = ".".join(sections), found["value"]
            default = f"`{value}`" if value else ""
            rows.append(f"| `{name}` | {default} | {found['comment'].replace('|', '')} |")
    return rows


def tree() -> list[str]:
    """A line a module of the package, with the first line of its docstring."""
    home, lines, room = ROOT / "src" / "dayfold", [], None
    paths = sorted(home.rglob("*.py"), key=lambda path: (len(path.parts), path))
    for path in sorted(paths, key=lambda p: (p.parent != home, p.parent, p.name != "__init__.py")):
        said = (ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0]
        if path.parent != home and path.parent != room:
            room = path.parent
            lines.append(f"  {room.name + '/':24}{said}")
        elif path.name != "__init__.py":
            indent = "  " if path.parent == home else "    "
            lines.append(f"{indent + path.name:26}{said}")
    return lines


def test_the_params_table_is_params_yaml():
    for row in params_table():
        assert row in README, "\n".join(params_table())


def test_the_tree_has_every_file_with_its_first_line():
    for line in tree():
        assert line in README, "\n".join(tree())


def test_every_command_that_a_user_types_stands_in_the_readme():
    commands = typer.main.get_command(app).commands
    stages = {"snapshot", "weights", "replay", "train", "evaluate", "curve"}
    for name in set(commands) - stages - {"demo"}:
        assert f"dayfold {name}" in README, name


def test_no_command_in_the_readme_is_made_up():
    commands = typer.main.get_command(app).commands
    for name in re.findall(r"(?:^|`)\s*dayfold ([a-z]+)", README, re.MULTILINE):
        assert name in commands, name
