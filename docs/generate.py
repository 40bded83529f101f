"""Write what the code knows best (`make docs`): docs/cli.md, params.md and house.md.

A test holds the pages against what this makes.
"""

import ast
import inspect
import re
from pathlib import Path

import typer

from dayfold.cli import app

ROOT = Path(__file__).parent.parent
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#]*?))? +# (?P<comment>.+)$")
MADE = "<!-- Made by `make docs`; what you change here is lost. -->"


def params() -> str:
    """A row a key of params.yaml: its dotted name, its default, its comment."""
    rows = ["| param | default | |", "| --- | --- | --- |"]
    sections: list[str] = []
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        if found := LINE.match(line):
            depth = len(found["indent"]) // 2
            sections = [*sections[:depth], found["key"]]
            value = found["value"]
            default = f"`{value}`" if value else ""
            rows.append(
                f"| `{'.'.join(sections)}` | {default} | {found['comment'].replace('|', '')} |"
            )
    said = "What `params.yaml` holds. A wrong or unknown value is told with its line, all at once."
    return page("Params", said, "\n".join(rows))


def house() -> str:
    """A line a module of the package, with the first line of its docstring."""
    home, lines, room = ROOT / "src" / "dayfold", [], None
    for path in sorted(home.rglob("*.py"), key=lambda p: (p.parent != home, p.parent, p.name)):
        said = (ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0]
        if path.name == "__init__.py":
            if path.parent != home:
                room = path.parent.relative_to(home).as_posix()
                lines.append(f"{room + '/':22}{said}")
        else:
            lines.append(f"{'  ' * (path.parent != home) + path.name:22}{said}")
    said = """\
Every file of `src/dayfold`, and what it is for. Imports go down this list only: cli, then what
walks whole histories or uses a model (demo, backtest, serve), then cycle, create, stages and proof,
figures and learning, ledger, project, draws and errors. Stages never import each other: they meet
in files. Only `learning`, what trains and what predicts import torch. A test checks all of this."""
    return page("The house, room by room", said, "```\n" + "\n".join(lines) + "\n```")


def cli() -> str:
    """A section a command, by panel: what it does, an example, its arguments and options."""
    panels: dict[str, list[str]] = {}
    for name, command in typer.main.get_command(app).commands.items():
        if command.hidden:
            continue
        example = command.epilog.removeprefix("Example:").strip()
        lines = [f"### dayfold {name}", _plain(inspect.cleandoc(command.help))]
        lines.append(f"```\n{example}\n```")
        rows = []
        for one in command.params:
            if one.name == "help":
                continue
            is_option = isinstance(one, typer.core.TyperOption)
            metavar = one.metavar or ("" if one.is_flag else one.name.upper())
            shown = ", ".join(f"`{word}`" for word in one.opts) if is_option else f"`{metavar}`"
            if is_option and metavar:
                shown += f" `{metavar}`"
            rows.append(f"- {shown}: {_plain(one.help)}")
        if rows:
            lines.append("\n".join(rows))
        panels.setdefault(command.rich_help_panel, []).append("\n\n".join(lines))
    parts = [f"## {panel}\n\n" + "\n\n".join(commands) for panel, commands in panels.items()]
    said = "`dayfold --help` and `dayfold COMMAND --help` say the same."
    return page("Commands", said, "\n\n".join(parts))


def _plain(text: str) -> str:
    """Text in which a `<class>` is no tag."""
    return text.replace("<", r"\<")


def page(title: str, said: str, body: str) -> str:
    """A whole page, as it is written."""
    return f"# {title}\n\n{MADE}\n\n{said}\n\n{body}\n"


PAGES = {"docs/cli.md": cli, "docs/params.md": params, "docs/house.md": house}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / name).write_text(make(), encoding="utf-8")
