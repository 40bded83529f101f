"""The commands of the day's cycle."""

from pathlib import Path
from typing import Annotated

import typer

from dayfold.cli.top import CYCLE, Day, Source, command, day_of, say
from dayfold.project.layout import Project


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
    move: Annotated[bool, typer.Option("--move", help="Move the files, not copy them.")] = False,
) -> None:
    """Check today's images and take them in; opens the day if need be."""
    from dayfold.cycle import adding
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, "adding images", say=say):
        opened, delivery = adding.add(project, source, day=day_of(day), move=move)
    classes = {item.label for item in delivery.images}
    print(f"{opened}: {len(delivery.images)} images added in {len(classes)} classes")
    if move and delivery.known:
        print(f"  {len(delivery.known)} known images were left in {source}")
    for line in delivery.passed_over():
        print(f"  {line}")
    print("next: dvc repro" if delivery.images else "nothing new")


@command(CYCLE, "dayfold open 2025-06-04", name="open")
def open_(day: Annotated[str, typer.Argument(metavar="DAY", help="YYYY-MM-DD")]) -> None:
    """Open a day without images: for dropping them into data/images/DAY by hand."""
    from dayfold.cycle import opening
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, "opening a day", say=say):
        opening.open_day(project, day_of(day))
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
    with ready(project, "sealing", say=say):
        print(f"sealed as {sealing.seal(project, message, force=force)}")
    for line in sealing.warnings(project):
        print(line)


@command(CYCLE, "dayfold unseal")
def unseal() -> None:
    """Take back the last day's seal, as long as nothing was pushed or built on it."""
    from dayfold.cycle import sealing
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, "unsealing", say=say):
        print(f"{sealing.unseal(project)} is open again; all its files are as they were")


@command(CYCLE, "dayfold run ~/scans/today")
def run(source: Source, day: Day = None) -> None:
    """Add, reproduce and seal in one go: the form for a nightly job.

    Exit code 0: the day is sealed, or there was nothing new; 3: it does not pass the gate
    (params.yaml) and stays open for a person to judge; 1: something else went wrong.
    """
    from dayfold.cycle import unattended
    from dayfold.project.healing import ready

    project = Project.find()
    with ready(project, "running", say=say):
        unattended.run(project, source, day=day_of(day), say=say)


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
    with ready(project, "running", say=say):
        unattended.backfill(project, source, say=say)


@command(CYCLE, "dayfold status")
def status() -> None:
    """Say which day it is, whether it is sealed, and what to run next."""
    from dayfold.cycle import standing

    print("\n".join(standing.advice(Project.find())))
