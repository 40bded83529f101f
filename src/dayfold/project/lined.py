"""A YAML file as plain data, and with the line of each key for what must be said of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dayfold.errors import ParamsError


def load(path: Path) -> tuple[Any, Any]:
    """Return a file's node tree, which gives the lines, and its values."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path.name} is not UTF-8: {error}", mend=f"edit {path.name}") from None
    return parse(text, path.name)


def parse(text: str, name: str) -> tuple[Any, Any]:
    """As `load`, of the text of a file of this name."""
    try:
        # The safe loader under another name, twice.
        return yaml.compose(text, Loader=yaml.CSafeLoader), yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(name, text, error) from None


def _not_yaml(name: str, text: str, error: yaml.YAMLError) -> ParamsError:
    """What YAML does not read, with its line; of an unknown escape, how it is written instead."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ParamsError(f"{name} is not YAML: {error}", mend=f"edit {name}")
    number = error.problem_mark.line
    what = f"{name} is not YAML: line {number + 1}: {error.problem}."
    if "escape character" not in str(error.problem):
        return ParamsError(what, mend=f"edit {name}")
    line = text.splitlines()[number].strip()
    return ParamsError(
        what,
        problems=[f"{name}:{number + 1}: {line}"],
        mend="between double quotes YAML takes a backslash for its own; use single quotes: "
        + re.sub(r'"([^"\']*)"', r"'\1'", line.partition(" #")[0].rstrip()),
    )


def twice(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys that stand twice in one section: YAML would take the last without a word."""
    seen: set[str] = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if key.value in seen:
            yield f"{key.start_mark.line + 1}: {prefix}{key.value} stands twice"
        seen.add(key.value)
        yield from twice(value, f"{prefix}{key.value}.")


def line_of(node: Any, where: list[str]) -> int:
    """The line of a key in the node tree, or of the nearest section around it."""
    line = 1
    for part in where:
        if not isinstance(node, yaml.MappingNode):
            break  # an item of a list: the line of its key
        for key, value in node.value:
            if key.value == part:
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line
