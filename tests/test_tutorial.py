"""docs/tutorial.md, typed from top to bottom: it prints what the page shows, and it is true."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from builders import IDENTITY, ROOT, table
from dayfold.errors import RefusedError
from dayfold.ledger import manifest
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.layout import Project
from pages import blocks, commands

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "tutorial.md"
ONE, TWO, THREE, LAST = (f"2025-06-{day}" for day in ("02", "03", "04", "06"))
SLIP, WITHDRAWN = f"data/images/{TWO}/5/slip.png", f"data/images/{ONE}/1/004.png"


class Walk(NamedTuple):
    """The project that came of it, and what each command printed, by command."""

    project: Project
    printed: dict[str, str]


def type_in(command: str, folder: Path, shown: list[str]) -> str:
    """Run a command as a reader would; it fails where the page shows that it does."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**vcs.environment(), **IDENTITY, "COLUMNS": "100"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    said_to_fail = any(line.startswith("dayfold: ") for line in shown)
    codes = (1, RefusedError.exit_code) if said_to_fail else (0,)
    assert done.returncode in codes, f"{command}\n{done.stdout}"
    return done.stdout


def edit(project: Project, block: list[str]) -> None:
    """Make the edit of params.yaml that a block of `-` and `+` lines shows."""
    text = project.params.read_text(encoding="utf-8")
    for old, new in zip(block[::2], block[1::2], strict=True):
        assert (old[0], new[0]) == ("-", "+")
        assert text.count(old[1:]) == 1, old
        text = text.replace(old[1:], new[1:])
    project.params.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    here = top = tmp_path_factory.mktemp("tutorial")
    project = Project(top / "scans")
    printed: dict[str, str] = {}
    shown = commands(PAGE)
    for block in blocks(PAGE):
        if block.language == "python":
            text = "\n".join(block.lines)
            (top / "make_images.py").write_text(text, encoding="utf-8")
        elif block.language == "diff":
            edit(project, block.lines)
            # `init` measured which pays, beside another test: bf16 gives other figures.
            params_file.edit(project.params, {"train.precision": "fp32"})
        elif block.language == "console":
            for one in shown:
                if not block.line <= one.line < block.line + len(block.lines):
                    continue
                if one.command.startswith("cd "):
                    here = here / one.command.removeprefix("cd ")
                    continue
                said = type_in(one.command, here, one.output)
                print(f"$ {one.command}\n{said}")
                printed[f"{one.line} {one.command}"] = said
    return Walk(project, printed)


def shape(line: str) -> str:
    """A line without its figures, which are those of one machine."""
    return " ".join(re.sub(r"-?\.?\d[\d.,]*", "#", line).split())


def test_the_page_shows_what_is_printed(walk):
    wrong = []
    for one in commands(PAGE):
        printed = walk.printed.get(f"{one.line} {one.command}")
        if printed is None:
            continue
        lines = iter([shape(line) for line in printed.splitlines()])
        for line in one.output:
            if line.strip() not in ("", "…") and shape(line) not in lines:
                wrong.append(f"{one.line}: {one.command}: {line}")
                break
    assert not wrong, "\n".join(wrong)


def images_of(project: Project, day: str) -> dict[str, str]:
    return dict(manifest.history(project, day).images.select("path", "label").iter_rows())


def test_a_decision_of_the_audit_holds_from_the_next_day_on(walk):
    project = walk.project
    before, after = images_of(project, TWO), images_of(project, THREE)
    assert (before[SLIP], after[SLIP], images_of(project, LAST)[SLIP]) == ("5", "3", "3")
    assert WITHDRAWN in before
    assert WITHDRAWN not in after
    rows = table(project.corrections(THREE))
    assert [(row["action"], row["label"]) for row in rows] == [("relabel", "3"), ("withdraw", "")]
    events = [row for row in table(project.manifest(THREE)) if row["path"] in (SLIP, WITHDRAWN)]
    assert [(row["action"], row["label"]) for row in events] == [("relabel", "3"), ("withdraw", "")]
    assert [row["image"] for row in events] == [row["image"] for row in rows]


def test_the_params_of_each_day_are_kept_with_it(walk):
    for day in (ONE, LAST):
        text = vcs.git(walk.project.root, "show", f"{vcs.TAG}{day}:params.yaml")
        assert f'\nday: "{day}"' in text
        assert "\n  updates: 40 " in text
    assert params_file.read(walk.project.params).day == LAST


def test_the_third_day_is_made_again_to_the_bit(walk):
    (said,) = [out for key, out in walk.printed.items() if "dayfold reproduce" in key]
    assert f"\n{THREE}  identical\n" in said


def test_what_is_handed_on_lies_beside_the_project(walk):
    top = walk.project.root.parent
    for name in ("digits.safetensors", "digits.README.md", "digits.MODEL_CARD.md"):
        assert (top / name).stat().st_size > 500
    assert walk.project.report(LAST).exists()
