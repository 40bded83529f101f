"""The command line: parse, call, print. No logic; everything heavy is imported by its command."""

import gc
import io
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.project.layout import UNOPENED, Project, check_day

CYCLE, HISTORY, STAGES = "The day's cycle", "Looking back", "Stages, as dvc repro calls them"

app = typer.Typer(
    name="dayfold",
    help="Fold each day's new images into the classifier, and keep every day reproducible.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an error that a user can mend is printed without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A class's name may hold what the terminal's encoding does not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except DayfoldError as error:
        print(f"dayfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"dayfold: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _day(given: str | None) -> str:
    """The day that is meant. The one place where the clock is read."""
    today = datetime.now().astimezone().date().isoformat()
    if given is None:
        return today
    if check_day(given) > today:
        raise CycleError(f"{given} is in the future.", mend=f"give a day up to {today}")
    return given


Day = Annotated[
    str | None, typer.Option("--day", metavar="YYYY-MM-DD", help="The day; today by default.")
]
Source = Annotated[Path, typer.Argument(metavar="SRC", help="A folder of <class>/<image>.")]


def _command(
    panel: str, example: str, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command in a panel of `--help`, with an example at the end of its own."""
    return app.command(name, rich_help_panel=panel, epilog=f"Example:  {example}")


@_command(CYCLE, "dayfold init scans --weights imagenet --image-size 224")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    weights: Annotated[
        str, typer.Option(metavar="imagenet|random|FILE", help="What the first day starts from.")
    ] = "imagenet",
    classes: Annotated[
        str, typer.Option(metavar="A,B,…", help="The classes of FILE's head, in its order.")
    ] = "",
    image_size: Annotated[
        int | None,
        typer.Option(min=16, max=1024, help="Pixels a side; as in params.yaml if not given."),
    ] = None,
) -> None:
    """Make a project: git, DVC, the pipeline, params.yaml and the origin's weights."""
    from dayfold import create

    names = [name.strip() for name in classes.split(",")] if classes else []
    create.init(directory, weights=weights, classes=names, image_size_px=image_size)
    print(f"{directory} is ready, from {weights} weights")
    print(f"next: cd {directory} && dayfold add FOLDER")


@_command(CYCLE, "dayfold add ~/scans/today")
def add(
    source: Source,
    day: Day = None,
    move: Annotated[bool, typer.Option("--move", help="Move the files, not copy them.")] = False,
) -> None:
    """Check today's images and take them in; opens the day if need be."""
    from dayfold import cycle

    project = Project.find()
    opened, delivery = cycle.add(project, source, day=_day(day), move=move)
    classes = {item.label for item in delivery.images}
    print(f"{opened}: {len(delivery.images)} images added in {len(classes)} classes")
    if move and delivery.known:
        print(f"  {len(delivery.known)} known images were left in {source}")
    for line in delivery.passed_over():
        print(f"  {line}")
    print("next: dvc repro" if delivery.images else "nothing new")


@_command(CYCLE, "dayfold open 2025-06-04", name="open")
def open_(day: Annotated[str, typer.Argument(metavar="DAY", help="YYYY-MM-DD")]) -> None:
    """Open a day without images: for dropping them into data/images/DAY by hand."""
    from dayfold import cycle

    project = Project.find()
    cycle.open_day(project, _day(day))
    print(f"{day} is open; images go to {project.name(project.images(day))}/<class>/")


@_command(CYCLE, 'dayfold seal -m "first scans of the new probe"')
def seal(
    message: Annotated[str, typer.Option("--message", "-m", help="The commit's message.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Seal a day that fails the gate; --message says why.")
    ] = False,
) -> None:
    """Commit the day and tag it day/<day>; from then on it is settled.

    Exit code 3: the day does not pass the gate (params.yaml) and is not sealed.
    """
    from dayfold import cycle

    print(f"sealed as {cycle.seal(Project.find(), message, force=force)}")


@_command(CYCLE, "dayfold unseal")
def unseal() -> None:
    """Take back the last day's seal, as long as nothing was pushed or built on it."""
    from dayfold import cycle

    print(f"{cycle.unseal(Project.find())} is open again; all its files are as they were")


@_command(CYCLE, "dayfold run ~/scans/today")
def run(source: Source, day: Day = None) -> None:
    """Add, reproduce and seal in one go: the form for a nightly job.

    Exit code 0: the day is sealed, or there was nothing new; 3: it does not pass the gate
    (params.yaml) and stays open for a person to judge; 1: something else went wrong.
    """
    from dayfold import unattended

    unattended.run(Project.find(), source, day=_day(day), say=_say)


@_command(CYCLE, "dayfold backfill ~/archive")
def backfill(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of <day>/<class>/<image>.")
    ],
) -> None:
    """Run every dated folder in order; interrupted, it goes on where it was.

    Exit codes as of `dayfold run`: a day that does not pass the gate stops it with 3.
    """
    from dayfold import unattended

    unattended.backfill(Project.find(), source, say=_say)


@_command(CYCLE, "dayfold status")
def status() -> None:
    """Say which day it is, whether it is sealed, and what to run next."""
    from dayfold import cycle

    print("\n".join(cycle.advice(Project.find())))


@_command(HISTORY, "dayfold log --classes --day 2025-06-04")
def log(
    classes: Annotated[
        bool, typer.Option("--classes", help="The figures of each class, on one day.")
    ] = False,
    day: Annotated[
        str | None,
        typer.Option("--day", metavar="YYYY-MM-DD", help="With --classes; the last by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures of all days.")] = False,
) -> None:
    """Show all days and their figures, from files alone; docs/metrics.md defines each."""
    from dayfold import cycle
    from dayfold.figures import log as history
    from dayfold.project.console import show

    project = Project.find()
    now = cycle.standing(project)
    lines = history.lines(project, now.params)
    if as_json:
        print(history.as_json(lines), end="")
    elif classes or day:
        show(history.class_table(history.line_of(lines, day)))
    else:
        forced = cycle.forced(project)
        verdicts = history.verdicts(project, lines, sealed=now.sealed, forced=forced)
        show(history.table(lines, verdicts))
        for note in history.notes(lines, forced):
            print(note)


@_command(HISTORY, "dayfold backtest --policy project --policy naive --seeds 3")
def backtest(
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="naive, recency, replay, project, cumulative or scratch; all of them by default.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="The project's policy with this changed."),
    ] = None,
    days: Annotated[
        str, typer.Option(metavar="A..B", help="The days to replay; all sealed ones by default.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the project's on.")] = 1,
) -> None:
    """Replay the project's history under other policies, and compare what is kept and learnt."""
    from dayfold import backtest as replayed
    from dayfold.figures import comparison
    from dayfold.project.console import show

    project = Project.find()
    policies = replayed.policies(policy or [], changes or [])
    first, last = replayed.span(days)
    runs = replayed.compare(
        project, policies=policies, first=first, last=last, seeds=seeds, say=_say
    )
    show(comparison.table(runs))
    print(f"stored in {project.name(project.backtest_curves.parent)}/; curves in curves.png")


@_command(HISTORY, "dayfold demo demo/")
def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder, or an earlier demo.")
    ],
) -> None:
    """Run the whole cycle on scikit-learn's handwritten digits, six days in a few minutes."""
    from dayfold import demo as walkthrough

    walkthrough.run(directory, say=_say)


def _say(text: str) -> None:
    print(text, flush=True)


def _stage(name: str) -> None:
    from dayfold.project import params as params_file

    project = Project.find()
    params = params_file.read(project.params)
    if params.day == UNOPENED:
        raise CycleError("No day is open.", mend="dayfold add FOLDER")
    # The collector would walk all that torch and torchvision make at import, again and again, and
    # once more at exit: without it a stage that needs them takes 1.3 s less (of 5.7 s).
    gc.disable()
    stage = import_module(f"dayfold.stages.{name}")
    gc.freeze()
    gc.enable()
    stage.run(project, params)


@_command(STAGES, "dvc repro snapshot")
def snapshot() -> None:
    """The day's images and corrections → its manifest."""
    _stage("snapshot")


@_command(STAGES, "dvc repro weights")
def weights() -> None:
    """Data versions → what an image of each counts for today."""
    _stage("weights")


@_command(STAGES, "dvc repro replay")
def replay() -> None:
    """All earlier images → the few that today's training sees again."""
    _stage("replay")


@_command(STAGES, "dvc repro train")
def train() -> None:
    """Yesterday's model, today's images and the replay set → today's model."""
    _stage("train")


@_command(STAGES, "dvc repro evaluate")
def evaluate() -> None:
    """Today's model on every held-out image → counts, and the classification report."""
    _stage("evaluate")


@_command(STAGES, "dvc repro curve")
def curve() -> None:
    """All days' counts → metrics.json and the data of the plots."""
    _stage("curve")
