"""Which test files a change touches, for `make check`: by what they import, and what they name."""

import ast
import subprocess
from functools import cache
from pathlib import Path

from builders import ROOT

SOURCES = (ROOT / "src", ROOT / "tests", ROOT / "benchmarks")
# Every test has these: a change of one touches all.
OF_ALL = ("tests/conftest.py", "tests/warm.py", "tests/warm_client.py", "pyproject.toml")
# They make the projects of nearly all tests: what they import would touch nearly all.
MAKERS = ("builders", "histories")


@cache
def changed(commit: str) -> list[str]:
    """The files that differ from a commit, and those that git does not know yet."""
    found = []
    for words in (["diff", "--name-only", commit], ["ls-files", "--others", "--exclude-standard"]):
        done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
        found += done.stdout.splitlines()
    return found


def is_touched(test: Path, files: list[str]) -> bool:
    """Whether a changed file is one of all tests, is imported at once, or is named in the test.

    What a command of a subprocess runs is not seen; such tests are slow, and none of the check's.
    """
    text, reached = test.read_text(encoding="utf-8"), reach(test)

    def touches(name: str) -> bool:
        if name in OF_ALL or ROOT / name in reached:
            return True
        if name.endswith(".py"):
            return f'"{Path(name).stem}"' in text or '"*.py"' in text
        return Path(name).name in text or (name.endswith(".md") and "pages" in text)

    return any(map(touches, files))


def reach(path: Path) -> set[Path]:
    """A file, and all of this repository that importing it imports, but for what MAKERS do."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo += [] if current.stem in MAKERS else imported(current)
    return found


@cache
def imported(path: Path) -> list[Path]:
    names = []
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = (folder / name.replace(".", "/") for name in names for folder in SOURCES)
    both = (one for file in files for one in (file.with_suffix(".py"), file / "__init__.py"))
    return [one for one in both if one.is_file()]
