"""Generate docs/cli.md, params.md and house.md from the code (`make docs`).

A test compares the pages with the code.
"""

import ast
import inspect
import re
from pathlib import Path

import typer

from dayfold.cli import app

ROOT = Path(__file__).parent.parent
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#]*?))? +# (?P<comment>.+)$")
MADE = "<!-- Made by `make docs`: do not edit. -->"


def params() -> str:
    """Return params.md: a heading for each section, a line for each key."""
    lines: list[str] = []
    sections: list[str] = []
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        if found := LINE.match(line):
            depth = len(found["indent"]) // 2
            sections = [*sections[:depth], found["key"]]
            name, comment = f"`{'.'.join(sections)}`", found["comment"]
            if depth or found["value"]:
                default = f" = `{found['value']}`" if found["value"] else ""
                lines.append(f"- {name}{default}: {comment}")
            else:
                lines.append(f"\n## {found['key']}\n\n{comment[0].upper()}{comment[1:]}.\n")
    said = "This page lists every setting of `params.yaml`, with its default, meaning and range."
    return page("Params", said, "\n".join(lines))


def house() -> str:
    """Return house.md: a line for each module, with the first line of its docstring."""
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
An image passes cycle/adding.py, ledger/intake/ and stages/, in the order of
[a day](formats.md#a-day). Imports go down this list only: cli; demo; backtest, serve; cycle;
create; stages, proof; history; figures, learning; ledger; project; draws, errors. Stages do not
import each other. Only what trains or predicts imports torch."""
    return page("The source, file by file", said, "```\n" + "\n".join(lines) + "\n```")


def cli() -> str:
    """Return cli.md: a section for each command, with an example, its arguments and options."""
    panels: dict[str, list[str]] = {}
    for name, command in typer.main.get_command(app).commands.items():
        if command.hidden:
            continue
        example = command.epilog.removeprefix("Example:").strip()
        lines = [f"### dayfold {name}", _plain(inspect.cleandoc(command.help))]
        lines.append(f"    {example}")
        rows = []
        for one in command.params:
            if one.name == "help" or getattr(one, "hidden", False):
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
    said = "This page lists every command and option, as `dayfold COMMAND --help` does."
    return page("Commands", said, "\n\n".join(parts))


def _plain(text: str) -> str:
    """Return text in which a `<class>` is not read as a tag."""
    return text.replace("<", r"\<")


def page(title: str, said: str, body: str) -> str:
    return f"# {title}\n\n{MADE}\n\n{said}\n\n{body}\n"


PAGES = {"docs/cli.md": cli, "docs/params.md": params, "docs/house.md": house}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / name).write_text(make(), encoding="utf-8")
