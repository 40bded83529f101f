"""The pages of the documentation, and the commands that they show."""

import re
from pathlib import Path
from typing import NamedTuple

from builders import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# The README that a new project begins with has commands too.
SPEAKING = (*PAGES, ROOT / "src" / "dayfold" / "template" / "README.md")
# Of a fence without a language, the lines are commands that begin like one.
SHELL, PLAIN = ("sh", "bash", "console"), ""
TOOLS = ("dayfold", "dvc", "git", "make")
FENCE = re.compile(r"^```(\w*)$")


class Block(NamedTuple):
    """A block of code: its language, the number of its first line, and its lines."""

    language: str
    line: int
    lines: list[str]


class Shown(NamedTuple):
    """A command as a page shows it, the number of its line, and what it is said to print."""

    line: int
    command: str
    output: list[str]


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, and indented ones, which in these pages are shell commands."""
    found: list[Block] = []
    fence: Block | None = None
    is_after_blank = True
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if match := FENCE.match(line):
            if fence is None:
                fence = Block(match[1], number + 1, [])
                found.append(fence)
            else:
                fence = None
        elif fence is not None:
            fence.lines.append(line)
        elif line.startswith("    ") and line.strip():
            if is_after_blank:
                found.append(Block("sh", number, []))
            found[-1].lines.append(line[4:])
        is_after_blank = not line.strip()
    return found


def commands(page: Path) -> list[Shown]:
    """All commands of a page, in order; without comments, and whole where a line goes on."""
    found: list[Shown] = []
    for block in blocks(page):
        rest = ""
        for number, line in enumerate(block.lines, start=block.line):
            if block.language == "console" and not line.startswith("$ ") and not rest:
                if found:
                    found[-1].output.append(line)
                continue
            if block.language == PLAIN and not line.startswith(tuple(f"{tool} " for tool in TOOLS)):
                continue
            if block.language not in (*SHELL, PLAIN):
                continue
            text = f"{rest}{line.removeprefix('$ ')}"
            rest = f"{text[:-1]}" if text.endswith("\\") else ""
            if not rest and text.strip() and not text.startswith("#"):
                found.append(Shown(number, text, []))
    return found
