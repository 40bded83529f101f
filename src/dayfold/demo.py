"""The demo: six days of digits."""

import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from dayfold import backtest
from dayfold.errors import CycleError, ToolError
from dayfold.figures import charts
from dayfold.ledger import tables
from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy
from dayfold.project import params, vcs
from dayfold.project.console import say
from dayfold.project.layout import Project

DAYS = ("2025-06-02", "2025-06-03", "2025-06-04", "2025-06-05", "2025-06-06", "2025-06-09")
JOINS = {"6": 1, "7": 2, "8": 3, "9": 4}  # digit → the day (from 0) on which it is first seen
FORGETTING = DAYS[-2:]  # the days that are made again without replay
IMAGE_SIZE_PX = 16  # twice the digits' size; 32 px take 1.5 times as long for the same figures
INCOMING = "incoming"
PICTURE = "forgetting.png"


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits as 8x8 PNG files <day>/<class>/<image>.png.

    A digit appears on the day on which it joins and later only every third day, so forgetting is
    possible. Its images are spread evenly over its days.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    count = Counter[str]()
    for number, (image, target) in enumerate(zip(pixels, digits.target, strict=True)):
        label = str(target)
        first = JOINS.get(label, 0)
        later = range(first + 1, len(DAYS))
        its_days = [first, *(day for day in later if (int(label) + day) % 3 == 0)]
        day = DAYS[its_days[count[label] % len(its_days)]]
        count[label] += 1
        path = folder / day / label / f"digit-{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def run(folder: Path) -> None:
    """Make the project in `folder` and run its days; go on where an earlier demo was stopped.

    Raises CycleError where `folder` holds something else, ToolError where a command fails.
    """
    began = time.monotonic()
    project = Project(folder.resolve())
    if not project.params.exists():
        if folder.exists() and any(folder.iterdir()):
            raise CycleError(f"{folder} is not empty and not a demo.", hint="name another folder")
        begin(folder)
    elif not (project.root / INCOMING).is_dir():
        raise CycleError(
            f"{folder} is a project, but not a demo (or one that was stopped as it began).",
            hint=f"name another folder, or, if nobody needs it: rm -rf {shlex.quote(str(folder))}",
        )
    sealed = vcs.sealed_days(project.root)
    if sealed:
        say(
            f"\n{folder} has {len(sealed)} of {len(DAYS)} days; going on from there. "
            f"To start over: rm -rf {shlex.quote(str(folder))}"
        )
    for number, day in enumerate(DAYS, start=1):
        if day in sealed:
            continue
        new = [f"digit {digit} is new" for digit, first in JOINS.items() if DAYS[first] == day]
        news = new[0] if new else "no new class" if number > 1 else "digits 0 to 5"
        say(f"\n── day {number} of {len(DAYS)}: {news} " + "─" * 40)
        _shell(project.root, ("dayfold", "run", f"{INCOMING}/{day}", "--day", day))
    if not sealed:
        say(f"\n── {len(DAYS)} days in {time.monotonic() - began:.0f} s " + "─" * 50)
    _finish(project, folder)


def begin(folder: Path) -> None:
    size = str(IMAGE_SIZE_PX)
    words = ("dayfold", "init", str(folder), "--weights", "random", "--image-size", size, "--yes")
    _shell(Path.cwd(), words)
    # At this size both precisions are about as fast, and `init` pins one or the other by chance.
    params.edit(Project(folder).params, {"train.precision": "fp32"})
    say("precision: fp32 for the demo, so that it has the figures of the README")
    part = folder / f"{INCOMING}.part"
    write_digits(part)
    part.rename(folder / INCOMING)
    say(f"1,797 digits written to {folder / INCOMING}/<day>/<class>/<image>.png")


def _shell(root: Path, words: Sequence[str]) -> None:
    say(f"$ {shlex.join(words)}")
    has_identity = vcs.git_succeeds(root, "var", "GIT_COMMITTER_IDENT")
    env = vcs.environment()
    for role in ("AUTHOR", "COMMITTER") if not has_identity else ():
        env |= {f"GIT_{role}_NAME": "dayfold demo", f"GIT_{role}_EMAIL": "demo@dayfold.invalid"}
    done = subprocess.run(words, cwd=root, env=env, check=False)
    if done.returncode:
        what = f"`{shlex.join(words)}` failed (exit code {done.returncode})."
        raise ToolError(what, hint="the same demo goes on from here")


def _finish(project: Project, folder: Path) -> None:
    _shell(project.root, ("dayfold", "diff"))
    say("")
    _shell(project.root, ("dayfold", "log"))
    first, last = FORGETTING
    say(f"\n── {first} and {last} once more, without replay " + "─" * 30)
    backtest.compare(project, [backtest.POLICIES["naive"]], first=first, last=last, seeds=1)
    replay = _of_first_day(tables.read(project.plot("cohorts"), CohortAccuracy))
    naive = _of_first_day(tables.read(project.backtest("cohorts"), PolicyAccuracy))
    title = "Digits 0 to 5, learnt on the first day: accuracy on that day's test images"
    charts.write_png(project.root / PICTURE, {title: charts.replay_curves(replay, naive)})
    say(
        f"""
Accuracy of the model of {last} on the first day's digits:
with replay {replay[last]:.3f}, without {naive[last]:.3f}. {folder / PICTURE} shows it day by day.

What to try next, in {folder}:
  dayfold report --open                    the last day as a page: curve, classes, mistakes
  dayfold diff {DAYS[0]} {DAYS[-1]}       what five days changed
  dvc exp run -S replay.size=100           the last day once more, with fewer old images
  git checkout day/{DAYS[2]} && dvc checkout && dvc repro    an earlier day: up to date"""
    )


def _of_first_day(cells: pl.DataFrame) -> dict[str, float]:
    return dict(cells.filter(cohort=DAYS[0]).select("day", "accuracy").iter_rows())
