"""The commands of the day's cycle."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dayfold.cli.top import CYCLE, Day, Source, ask, command, day_of, here, say

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
    remote: Annotated[
        str,
        typer.Option(metavar="URL", help="A folder or URL that DVC shares images and models by."),
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: make it inside another git repository.")
    ] = False,
) -> None:
    """Make a project: git, DVC, the pipeline, params.yaml and the origin's weights.

    ImageNet's weights are taken from torchvision's cache if they are there, and downloaded
    otherwise. Inside another git repository the project gets a repository of its own, after a
    question.
    """
    say(f"making a project in {directory}")
    from dayfold import create

    names = [name.strip() for name in classes.split(",")] if classes else []

    def agreed(question: str) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(question))

    options = create.Options(weights, names, image_size, remote, agreed)
    create.init(directory, options, say=say)
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
    from dayfold.cycle import adding
    from dayfold.cycle.ready import ready
    from dayfold.project.console import show

    project = here()
    options = adding.Options(
        move=move, strict=strict, dry_run=dry_run, yes=yes, labels=labels, zip_names=zip_names
    )
    with ready(project, "add", say=say):
        today, delivery = adding.add(project, source, day=day_of(day), options=options)
    for line in adding.said_of_day(project, today, delivery, options):
        say(line)
    show(adding.table(today, delivery, options))
    print(adding.next_step(delivery, options))


@command(CYCLE, "dayfold open 2025-06-04", name="open")
def open_(day: Annotated[str, typer.Argument(metavar="DAY", help="YYYY-MM-DD")]) -> None:
    """Open a day without images: for dropping them into data/images/DAY by hand."""
    from dayfold.cycle import opening
    from dayfold.cycle.ready import ready

    project = here()
    with ready(project, "open", say=say):
        parent = opening.open_day(project, day_of(day))
    for line in opening.opened(project, day, parent):
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
    from dayfold.cycle.ready import ready

    project = here()
    with ready(project, "seal", say=say):
        for tag in sealing.seal(project, message, force=force):
            print(f"sealed as {tag}")
    for line in (*sealing.warnings(project), *sealing.sharing(project)):
        print(line)


@command(CYCLE, "dayfold undo --yes")
def undo(
    seal: Annotated[
        bool, typer.Option("--seal", help="Take back the seal alone; all files stay as they are.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take back the last thing done: an experiment on a sealed day, a seal, or an open day.

    A seal can be taken back until it is pushed. The images of an open day move to data/undone/.
    """
    from dayfold.cycle import undoing
    from dayfold.cycle.ready import ready

    project = here()
    with ready(project, "undo", say=say):
        found = undoing.plan(project, seal=seal)
        for line in found.lines:
            print(line)
        ask("Take it back?", yes=yes, mend="dayfold undo --yes")
        print(found.carry_out())


@command(CYCLE, "dayfold undo --seal --yes", hidden=True)
def unseal() -> None:
    """Do what `dayfold undo --seal --yes` does: the name of before 0.2."""
    undo(seal=True, yes=True)


@command(CYCLE, "dayfold run ~/scans/today")
def run(source: Source, day: Day = None, zip_names: ZipNames = "") -> None:
    """Add, reproduce and seal in one go: the form for a nightly job.

    Files that are refused stop nothing: they are said and listed in data/rejected/DAY.csv.

    Exit code 0: the day is sealed, or there was nothing new; 3: it does not pass the gate
    (params.yaml) and stays open for a person to judge; 1: something else went wrong.
    """
    from dayfold.cycle import unattended
    from dayfold.cycle.ready import ready

    project = here()
    with ready(project, "run", say=say):
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
    from dayfold.cycle.ready import ready

    project = here()
    with ready(project, "backfill", say=say):
        unattended.backfill(project, source, say=say)


@command(CYCLE, "dayfold status")
def status() -> None:
    """Say which day it is, whether it is sealed, and what to run next."""
    from dayfold.cycle import standing

    print("\n".join(standing.advice(here(in_conflict=True))))
