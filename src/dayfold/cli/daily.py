"""The commands of the day's cycle."""

from pathlib import Path
from typing import Annotated

import typer

from dayfold.cli.top import CYCLE, Day, Source, command, day_of, say
from dayfold.project.layout import Project

ZipNames = Annotated[
    str,
    typer.Option(
        metavar="ENCODING",
        help="How a zip or tar spells names that are not UTF-8: cp437 (DOS), cp1252, cp932, gbk.",
    ),
]


@command(CYCLE, "dayfold init scans --weights imagenet --image-size 224")
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


@command(CYCLE, "dayfold add ~/scans/today")
def add(
    source: Source,
    day: Day = None,
    move: Annotated[
        bool, typer.Option("--move", help="Move the files that are added, not copy them.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A CSV path,label[,group] of paths in SRC; no class folders are needed.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Add nothing if any file is refused.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and report, and change nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Take a delivery of an odd shape as it is.")
    ] = False,
    zip_names: ZipNames = "",
) -> None:
    """Check today's images and take the good ones in; starts a new day if needed.

    What is refused stays where it is and is listed in data/rejected/DAY.csv. Exit code 1: nothing
    was added, as all is refused, or with --strict any; or as the delivery has an odd shape.
    """
    from dayfold.cycle import adding, arrivals
    from dayfold.project.console import show
    from dayfold.project.healing import ready

    project = Project.find()
    options = adding.Options(
        move=move, strict=strict, dry_run=dry_run, yes=yes, labels=labels, zip_names=zip_names
    )
    with ready(project, say=say):
        today, delivery = adding.add(project, source, day=day_of(day), options=options)
    for line in arrivals.opening(project, today, delivery, options):
        say(line)
    show(arrivals.table(today, delivery, options))
    print(arrivals.next_step(delivery, options))


@command(CYCLE, "dayfold open 2025-06-04", name="open")
def open_(day: Annotated[str, typer.Argument(metavar="DAY", help="YYYY-MM-DD")]) -> None:
    """Open a day without images: for dropping them into data/images/DAY by hand."""
    from dayfold.cycle import arrivals, opening
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, say=say):
        parent = opening.open_day(project, day_of(day))
    for line in arrivals.opened(project, day, parent):
        print(line)
    print(f"{day} is open; images go to {project.name(project.images(day))}/<class>/")


@command(CYCLE, 'dayfold seal -m "first scans of the new probe"')
def seal(
    message: Annotated[str, typer.Option("--message", "-m", help="The commit's message.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Seal a day that fails the gate; --message says why.")
    ] = False,
) -> None:
    """Commit the day and tag it day/<day>; from then on it is settled.

    Exit code 3: the day does not pass the gate (params.yaml) and is not sealed.
    """
    from dayfold.cycle import sealing
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, say=say):
        print(f"sealed as {sealing.seal(project, message, force=force)}")
    for line in sealing.warnings(project):
        print(line)


@command(CYCLE, "dayfold unseal")
def unseal() -> None:
    """Take back the last day's seal, as long as nothing was pushed or built on it."""
    from dayfold.cycle import sealing
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, say=say):
        print(f"{sealing.unseal(project)} is open again; all its files are as they were")


@command(CYCLE, "dayfold run ~/scans/today")
def run(source: Source, day: Day = None, zip_names: ZipNames = "") -> None:
    """Add, reproduce and seal in one go: the form for a nightly job.

    Files that are refused stop nothing: they are said and listed in data/rejected/DAY.csv.

    Exit code 0: the day is sealed, or there was nothing new; 3: it does not pass the gate
    (params.yaml) and stays open for a person to judge; 1: something else went wrong.
    """
    from dayfold.cycle import unattended
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, say=say):
        unattended.run(project, source, day=day_of(day), zip_names=zip_names, say=say)


@command(CYCLE, "dayfold backfill ~/archive")
def backfill(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of <day>/<class>/<image>.")
    ],
) -> None:
    """Run every dated folder in order; interrupted, it goes on where it was.

    Exit codes as of `dayfold run`: a day that does not pass the gate stops it with 3.
    """
    from dayfold.cycle import unattended
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, say=say):
        unattended.backfill(project, source, say=say)


@command(CYCLE, "dayfold status")
def status() -> None:
    """Say which day it is, whether it is sealed, and what to run next."""
    from dayfold.cycle import standing

    print("\n".join(standing.advice(Project.find())))
