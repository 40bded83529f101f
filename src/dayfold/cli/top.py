"""The app, its entry point, shared options."""

import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.project import vcs
from dayfold.project.files import FULL
from dayfold.project.layout import Project, check_day

if TYPE_CHECKING:
    from dayfold.history.state import ProjectState

CYCLE, LABELS, HISTORY = "The day's cycle", "Labels", "Looking back"
MODEL, PROOF = "Using the model", "Proof"
STAGES = "Stages, as dvc repro calls them"

app = typer.Typer(
    name="dayfold",
    help="Fold each day's new images into the classifier, and keep every day reproducible.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def option(help_text: str, *names: str, **more: Any) -> Any:
    """Return an option, named as its parameter unless `names` are given."""
    return typer.Option(*names, help=help_text, **more)


def main() -> None:
    """Run the command line; an error that a user can fix is printed without a traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for name in filter(vcs.is_foreign, list(os.environ)):
        del os.environ[name]  # DVC runs in this process and calls git too
    for stream in (sys.stdout, sys.stderr):
        # A class's name may have letters that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.cwd()  # if it was deleted, importing torch would kill the process
        app()
    except DayfoldError as error:
        print(f"dayfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        if isinstance(error, FileNotFoundError) and not where:
            where = ": the folder that this runs in was deleted; cd to another"
        way = "; free some space, and run the command again" * (error.errno in FULL)
        print(f"dayfold: {error.strerror or error}{where}{way}", file=sys.stderr)
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, option("Show the version.", "--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def day_of(given: str | None) -> str:
    """Return the given day, or today. Only this function reads the clock.

    The open day may be ahead of this clock: it was opened in another time zone.
    """
    today = datetime.now().astimezone().date().isoformat()
    if given is not None and check_day(given) > today and given != _open_day():
        raise CycleError(f"{given} is in the future.", hint=f"give a day up to {today}")
    return given or today


def _open_day() -> str:
    from dayfold.project import params  # here, as few commands need it so early

    with suppress(DayfoldError, OSError):
        return params.day_of(Project.find().params.read_bytes())
    return ""


def days_of(given: str) -> tuple[str | None, str | None]:
    """Return the first and last day of "A..B", where either may be left out."""
    first, dots, last = given.partition("..")
    last = last if dots else first
    for day in filter(None, (first, last)):
        check_day(day)
    if first and last and first > last:
        raise CycleError(
            f"--days {given} is not a range of days: {first} comes after {last}.",
            hint="write --days 2025-06-02..2025-06-06; either end may be left out",
        )
    return first or None, last or None


Day = Annotated[str | None, option("The day; today by default.", "--day", metavar="YYYY-MM-DD")]


def command(
    panel: str, example: str, name: str | None = None, *, hidden: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command in a panel of `--help`, with an example at the end of its help."""
    return app.command(name, rich_help_panel=panel, epilog=f"Example:  {example}", hidden=hidden)


def current_project(*, in_conflict: bool = False) -> Project:
    """Return the project of the current folder.

    Raises CycleError if there is none, if it is not the top of a git repository, or if it has merge
    conflicts (unless `in_conflict`).
    """
    project = Project.find()
    vcs.check_is_top(project.root)
    if not in_conflict:
        vcs.check_nothing_under_way(project.root, conflicts_only=True)
    return project


@contextmanager
def changing(command_name: str) -> Iterator[Project]:
    """Lock and repair the project of the current folder, for a command that changes it."""
    from dayfold.cycle.ready import ready

    project = current_project()
    # DVC starts in the meantime; most of these commands use it.
    with vcs.dvc_ready(project.root), ready(project, command_name):
        yield project


@contextmanager
def without_collector() -> Iterator[None]:
    """Import torch faster, without the garbage collector.

    The collector would walk all objects of torch and torchvision again and again, and once more at
    exit. Without it a stage takes 1.3 s less (of 5.7 s).
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def warn_of_edits(project: Project) -> "ProjectState":
    """Warn on stderr of changed tables of sealed days; return the project's state."""
    from dayfold.history import refusals
    from dayfold.history.state import ProjectState

    now = ProjectState.read(project)
    try:
        refusals.check(now, "log")
    except CycleError as error:
        print(f"warning: {error}", file=sys.stderr)
    return now
