"""What a person sees: tables, progress, stages."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Self

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dayfold.errors import CycleError

LINE_EVERY_SECONDS = 15.0
MOST_LINES = 5  # of a long list that are printed
FILE_COLUMNS = 200  # characters a line, where the output is no terminal
# In the environment of stages that print only their main lines.
BRIEF = "DAYFOLD_BRIEF"
PROGRESS = "\x1e"  # begins a progress line, which the next line replaces
PROGRESS_SECONDS = 60.0  # between two progress lines, if the output is no terminal
# What DVC prints when a stage begins, and about itself.
_BEGUN = re.compile(r"Running stage '(\w+)':")
_OF_DVC = re.compile(
    r"\s*$|> dayfold |Verifying data sources|.* didn't change, skipping"
    r"|(Generat|Updat)ing lock file|To (track the changes|enable auto staging)"
    r"|\t(git add|dvc config) |Use `dvc push`"
)


def say(text: str) -> None:
    print(text, flush=True)


def ask(question: str, *, yes: bool, hint: str) -> None:
    """Raise CycleError unless `yes` is set or a person agrees."""
    if yes:
        return
    import typer  # slow to import, and few commands ask

    if not sys.stdin.isatty():
        raise CycleError("There is no terminal to ask on, so nothing was done.", hint=hint)
    # polars makes reads continue after Ctrl-C, which would then wait for the end of the line.
    signal.siginterrupt(signal.SIGINT, True)
    if not typer.confirm(question):
        raise CycleError("Nothing was done.")


def show(table: Table) -> None:
    """Print a table: fitted to a terminal, and elsewhere as wide as it needs.

    In a narrow terminal rich would shrink columns to nothing, so wider lines are wrapped instead.
    """
    wide = Console(width=FILE_COLUMNS)
    if not sys.stdout.isatty():
        wide.print(table)
        return
    least = 0
    for column in table.columns:
        cells = (column.header, *column.cells)
        sizes = [Measurement.get(wide, wide.options, cell) for cell in cells]
        most = max(one.maximum for one in sizes)
        column.min_width = most if column.no_wrap else sizes[0].minimum
        least += column.min_width + sum(table.padding)
    Console(width=max(Console().width, least)).print(table, crop=False)


def duration(seconds: float) -> str:
    """Return a time for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def arrows(pairs: Mapping[str, str]) -> str:
    """Return "FL → Femur, AC → abdomen"."""
    return ", ".join(f"{old} → {new}" for old, new in pairs.items())


def plural(number: int, thing: str) -> str:
    """Return "1 day", "1,200 days", "3 classes", "2 copies"."""
    plural = thing + ("es" if thing.endswith("s") else "s")
    if thing.endswith("y") and thing[-2] not in "aeiou":
        plural = thing[:-1] + "ies"
    return f"{number:,} {thing if number == 1 else plural}"


def first_few(lines: Sequence[str], where: str = "") -> list[str]:
    """Return the first lines of a list, and a line on how many more there are (in `where`)."""
    more = len(lines) - MOST_LINES
    place = f" in {where}" if where else ""
    return [*lines[:MOST_LINES], *[f"and {more} more{place}"] * (more > 0)]


class Ticker:
    """Progress through `total` units of work; `advance` may be called from any thread."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit, self._done = what, total, unit, 0
        self._began = self._said = time.monotonic()
        self._lock = Lock()
        self._every = 1.0 if BRIEF in os.environ else LINE_EVERY_SECONDS
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description:9}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn(f"{unit}  {{task.fields[note]}}"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                # This terminal, even while standard output is redirected.
                console=Console(file=sys.stdout),
                transient=True,
            )
            self._task = self._bar.add_task(what, total=total, note="", rate="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, units: int, note: str = "") -> None:
        with self._lock:
            self.so_far(self._done + units, self._total, note)

    def so_far(self, done: int, total: int, note: str = "") -> None:
        self._done = done
        if self._bar:
            speed = self._bar.tasks[0].speed
            rate = f"{speed:.0f}/s" if speed else ""
            self._bar.update(self._task, completed=done, total=total, note=note, rate=rate)
        elif time.monotonic() - self._said > self._every:
            known = done and done * 20 >= total  # before that, it is mostly the workers' start
            left = (time.monotonic() - self._began) / done * (total - done) if known else 0
            shown = f", {duration(left)} left" if known else ""
            self.line(f"{self._what} {done}/{total} {self._unit}{shown}")

    def line(self, text: str, *, lasts: bool = False) -> None:
        """Print a line that stays, above the bar if there is one.

        In a brief stage the next line replaces it, unless it `lasts`.
        """
        self._said = time.monotonic()
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)
            if BRIEF in os.environ:
                print(PROGRESS * (not lasts) + text, file=sys.__stdout__, flush=True)


class Stages:
    """The output of `dvc repro`, as one line a stage: its name, its time and its result."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._stage, self._began, self._shown = say, "", 0.0, 0.0

    def handle(self, line: str) -> None:
        begun = _BEGUN.match(line)
        if line.startswith(PROGRESS):
            self._progress(line.removeprefix(PROGRESS))
        elif begun:
            self._stage, self._began = begun[1], time.monotonic()
        elif not _OF_DVC.match(line):
            self._progress("")
            at = f"{time.monotonic() - self._began:6.1f} s" if self._stage else ""
            self._say(f"{self._stage:9}{at:8}  {line}")
            self._stage = ""

    def _progress(self, text: str) -> None:
        """Show a line for now: on a terminal until the next one, elsewhere once a minute."""
        if sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif text and time.monotonic() - max(self._began, self._shown) > PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._say(f"{'':19}{text}")
