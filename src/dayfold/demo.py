"""The demo: six days of handwritten digits through the real cycle, every command shown."""

import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dayfold.errors import CycleError, ToolError
from dayfold.figures import charts
from dayfold.ledger import tables
from dayfold.ledger.tables import CohortAccuracy
from dayfold.project import vcs
from dayfold.project.layout import Project

DAYS = ("2025-06-02", "2025-06-03", "2025-06-04", "2025-06-05", "2025-06-06", "2025-06-09")
JOINS = {"6": 1, "7": 2, "8": 3, "9": 4}  # digit → the day (from 0) on which it is first seen
IMAGE_SIZE_PX = 32
INCOMING = "incoming"
PICTURE = "forgetting.png"

Say = Callable[[str], None]


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits as 8x8 PNG files <day>/<class>/<image>.png.

    A digit comes on the day on which it joins and later on every third day only, so that there is
    something to forget; its images are spread evenly over its days.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    count: dict[str, int] = {}
    for number, (image, target) in enumerate(zip(pixels, digits.target, strict=True)):
        label = str(target)
        first = JOINS.get(label, 0)
        later = range(first + 1, len(DAYS))
        comes = [first, *(day for day in later if (int(label) + day) % 3 == 0)]
        day = DAYS[comes[count.get(label, 0) % len(comes)]]
        count[label] = count.get(label, 0) + 1
        path = folder / day / label / f"digit-{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def run(folder: Path, *, say: Say) -> None:
    """Make the project in `folder` and run its days; go on where an earlier demo was stopped.

    Raises CycleError where `folder` holds something else, ToolError where a command fails.
    """
    began = time.monotonic()
    project = Project(folder.resolve())
    if not project.params.exists():
        if folder.exists() and any(folder.iterdir()):
            raise CycleError(f"{folder} is not empty and not a demo.", mend="name another folder")
        _begin(folder, say)
    elif not (project.root / INCOMING).is_dir():
        raise CycleError(
            f"{folder} is a project, but not a demo (or one that was stopped as it began).",
            mend=f"name another folder, or, if it is nobody's: rm -rf {folder}",
        )
    sealed = vcs.sealed_days(project.root)
    if sealed:
        say(
            f"\n{folder} has {len(sealed)} of {len(DAYS)} days; going on from there. "
            f"To start over: rm -rf {folder}"
        )
    for number, day in enumerate(DAYS, start=1):
        if day in sealed:
            continue
        new = [digit for digit, first in JOINS.items() if DAYS[first] == day]
        news = (
            f"digit {new[0]} is new" if new else "no new class" if number > 1 else "digits 0 to 5"
        )
        say(f"\n── day {number} of {len(DAYS)}: {news} " + "─" * 40)
        for words in (
            ("dayfold", "add", f"{INCOMING}/{day}", "--day", day),
            ("dvc", "repro"),
            ("dvc", "metrics", "diff"),
            ("dayfold", "seal"),
        ):
            _shell(project.root, words, say)
    if not sealed:
        say(f"\n── {len(DAYS)} days in {time.monotonic() - began:.0f} s " + "─" * 50)
    _finish(project, folder, say)


def _begin(folder: Path, say: Say) -> None:
    size = str(IMAGE_SIZE_PX)
    words = ("dayfold", "init", str(folder), "--weights", "random", "--image-size", size, "--yes")
    _shell(Path.cwd(), words, say)
    part = folder / f"{INCOMING}.part"
    write_digits(part)
    part.rename(folder / INCOMING)
    say(f"1,797 digits written to {folder / INCOMING}/<day>/<class>/<image>.png")


def _shell(root: Path, words: Sequence[str], say: Say) -> None:
    """Show a command and run it as a user would."""
    say(f"\n$ {shlex.join(words)}")
    environment = {**vcs.environment(), **_identity(root)}
    done = subprocess.run(words, cwd=root, env=environment, check=False)
    if done.returncode:
        raise ToolError(
            f"`{shlex.join(words)}` failed (exit code {done.returncode}).",
            mend="the same demo goes on from here",
        )


def _identity(root: Path) -> dict[str, str]:
    """Who commits, where git on this machine has not been told."""
    if vcs.git_says(root, "var", "GIT_COMMITTER_IDENT"):
        return {}
    roles = ("AUTHOR", "COMMITTER")
    return {f"GIT_{role}_NAME": "dayfold demo" for role in roles} | {
        f"GIT_{role}_EMAIL": "demo@dayfold.invalid" for role in roles
    }


def _finish(project: Project, folder: Path, say: Say) -> None:
    _shell(project.root, ("dayfold", "log"), say)
    cells = tables.read(project.plot("cohorts"), CohortAccuracy)
    picture = project.root / PICTURE
    curve = charts.forgetting_curve([CohortAccuracy(*row) for row in cells.iter_rows()])
    charts.write_png(picture, {charts.TITLE: curve})
    say(
        f"""
The forgetting curve is drawn in {folder / PICTURE}. What to try next, in {folder}:

  dvc metrics diff day/{DAYS[0]} day/{DAYS[-1]}    what five days changed
  dvc plots diff day/{DAYS[-2]} day/{DAYS[-1]}     the curves, as a page
  dvc exp run -S replay.size=0           the last day without replay: see what is forgotten
  dvc exp show                           beside what it was
  git checkout day/{DAYS[2]} && dvc checkout && dvc repro    an earlier day: up to date"""
    )
