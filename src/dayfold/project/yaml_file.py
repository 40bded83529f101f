"""A YAML file with line numbers, edited in place."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dayfold.errors import ParamsError
from dayfold.project.files import write_bytes

BACKSLASH = "between double quotes YAML takes a backslash for its own; use single quotes"


def load(path: Path) -> tuple[Any, Any]:
    """Return a file's node tree, which has the line numbers, and its values."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path.name} is not UTF-8: {error}", hint=f"edit {path.name}") from None
    return parse(text, path.name)


def parse(text: str, name: str) -> tuple[Any, Any]:
    """Return the same as `load` for the text of a file of this name."""
    try:
        # CSafeLoader is the safe loader, in C.
        return yaml.compose(text, Loader=yaml.CSafeLoader), yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(name, text, error) from None


def _not_yaml(name: str, text: str, error: yaml.YAMLError) -> ParamsError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ParamsError(f"{name} is not YAML: {error}", hint=f"edit {name}")
    number = error.problem_mark.line
    what = f"{name} is not YAML: line {number + 1}: {error.problem}."
    if "escape character" not in str(error.problem):
        return ParamsError(what, hint=f"edit {name}")
    line = f"{name}:{number + 1}: {text.splitlines()[number].strip()}"
    return ParamsError(what, problems=[line], hint=BACKSLASH)


def twice(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield keys that a section has twice: YAML would silently take the last one."""
    seen: set[str] = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if key.value in seen:
            yield f"{key.start_mark.line + 1}: {prefix}{key.value} appears twice"
        seen.add(key.value)
        yield from twice(value, f"{prefix}{key.value}.")


def find(node: Any, where: list[str]) -> tuple[int, Any]:
    """Return the line and the node of a key, or of the nearest section around it."""
    line = 1
    for part in where:
        keys = node.value if isinstance(node, yaml.MappingNode) else []  # in a list: its key's line
        for key, value in keys:
            if key.value == part:
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line, node


def edit(
    path: Path, changes: Mapping[str, object], *, comments: Mapping[str, str] | None = None
) -> None:
    """Set values of a YAML file (`"train.threads": 4`); all other bytes stay, except `comments`.

    Strings are quoted: YAML 1.1 reads 2025-06-04 as a date, on which DVC's ${day} fails.
    """
    text = path.read_text(encoding="utf-8-sig")
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        section = find(parse(text, path.name)[0], sections)[1]
        old = {name.value: node for name, node in section.value}[key]
        start = old.start_mark.index
        end = start + len(text[start : old.end_mark.index].rstrip())
        before, above, line = text[:start].rpartition("\n")
        rest, newline, later = text[end:].partition("\n")
        comment = rest.strip()
        column = len(line) + end - start + len(rest) - len(rest.lstrip())
        if comments and dotted in comments:
            comment = f"# {comments[dotted]}"
        line += " " * (not line.endswith(" ")) + _written(value)
        if comment.startswith("#"):  # keep its column
            rest = " " * max(1, column - len(line)) + comment
        text = f"{before}{above}{line}{rest}{newline}{later}"
    write_bytes(path, text.encode())


def _written(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str) and "\\" in value and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float):
        return yaml.safe_dump(value).split("\n")[0]  # 1.0e-07: YAML 1.1 reads 1e-07 as text
    return json.dumps(value, ensure_ascii=False)
