"""The commands of the day's cycle."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dayfold.cli.top import CYCLE, Day, changing, command, current_project, day_of, option
from dayfold.errors import CycleError, RefusedError
from dayfold.project.console import plural, say, show

Group = Annotated[
    str | None,
    option(r"Set data.group: the (…) matches the patient in a path: '/(P\d+)_'.", metavar="REGEX"),
]

Move = Annotated[bool, option("Move the files that are added, not copy them.", "--move")]
Labels = Annotated[
    Path | None, option("Labels of SRC's files: CSV, or a labelling tool's export.", metavar="FILE")
]
Images = Annotated[
    Path | None, option("Where the files of --labels are; as SRC.", metavar="DIR", hidden=True)
]
Columns = Annotated[
    str, option("The columns of --labels; group= is optional.", metavar="path=A,label=B,…")
]
Relabel = Annotated[bool, option("Correct known images that have another label.", "--relabel")]
Classes = Annotated[
    Path | None, option("A CSV theirs,ours that renames classes; kept.", metavar="FILE")
]
Strict = Annotated[bool, option("Add nothing if any file is refused.", "--strict")]
DryRun = Annotated[bool, option("Report only.", "--dry-run")]
Yes = Annotated[bool, option("Do not ask about odd shapes and guessed columns.", "--yes")]


@command(CYCLE, "dayfold init scans --weights imagenet --image-size 224")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    weights: Annotated[
        str, option("What the first day starts from.", metavar="imagenet|random|FILE")
    ] = "imagenet",
    classes: Annotated[
        str, option("The classes of FILE's head, in its order.", metavar="A,B,…")
    ] = "",
    network: Annotated[
        str, option("The network; it never changes.", metavar="resnet18|resnet34|resnet50")
    ] = "resnet18",
    image_size: Annotated[
        int | None, option("Pixels a side; 224 by default.", min=16, max=1024)
    ] = None,
    remote: Annotated[
        str, option("A folder or URL where DVC shares images and models.", metavar="URL")
    ] = "",
    group: Group = None,
    yes: Annotated[
        bool, option("Make it inside another git repository without asking.", "--yes")
    ] = False,
) -> None:
    """Create a project: git, DVC, the pipeline, params.yaml and the starting weights.

    ImageNet's weights come from torchvision's cache, or are downloaded.
    """
    say(f"making a project in {directory}")
    from dayfold import create

    names = [name.strip() for name in classes.split(",")] if classes else []
    options = create.Options(weights, names, image_size, remote, yes, group or "", network)
    create.init(directory, options)
    print(f"{directory} is ready, from {weights} weights")
    print(f"next: cd {shlex.quote(str(directory))} && dayfold add FOLDER")


@command(CYCLE, "dayfold add ~/scans/today")
def add(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[SRC]", help="A folder, zip or tar of <class>/<image>."),
    ] = None,
    day: Day = None,
    move: Move = False,
    labels: Labels = None,
    images: Images = None,
    columns: Columns = "",
    relabel: Relabel = False,
    classes: Classes = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    group: Group = None,
) -> None:
    """Check images and add the good ones to the open day; starts a new day if needed.

    Without SRC it only starts the day, for images that you put into data/images/DAY/CLASS by hand.
    Exit code 4: files were refused, or known images have another label; the
    others were added, with --strict none. Exit code 1: an error, and nothing
    was added.
    """
    from dayfold.cycle import adding, opening

    if source and images:
        hint = "dayfold add FOLDER --labels FILE"
        raise CycleError("--images is another name for SRC.", hint=hint)
    source = source or images
    options = adding.Options(move, strict, dry_run, yes, labels, columns, relabel, classes, group)
    today = day_of(day)
    if source is None:
        if options != adding.Options(yes=yes):
            hint = "dayfold add FOLDER …; it may be one that was added before"
            raise CycleError("These options need images to add.", hint=hint)
        with changing("add") as project:
            parent = opening.open_day(project, today)
        for line in opening.opening_lines(project, today, parent):
            say(line)
        say(f"images go to {project.name(project.images(today))}/<class>/")
        return
    with changing("add") as project:
        delivery = adding.add(project, source, day=today, options=options)
    for line in delivery.notes:
        say(line)
    show(delivery.table(today))
    print(delivery.next_step())
    if delivery.refused or (delivery.changed and not relabel):
        raise typer.Exit(RefusedError.exit_code)


@command(CYCLE, 'dayfold seal -m "first scans of the new probe"')
def seal(
    message: Annotated[str, option("The commit's message.", "--message", "-m")] = "",
    force: Annotated[bool, option("Seal despite the gate; --message says why.", "--force")] = False,
) -> None:
    """Commit the day and tag it day/<day>; after that it does not change.

    Exit code 3: the day does not pass the gate.
    """
    from dayfold.cycle import sealing

    with changing("seal") as project:
        print("\n".join(sealing.seal(project, message, force=force)))


@command(CYCLE, "dayfold undo --yes")
def undo(
    seal: Annotated[
        bool, option("Undo the seal only; all files stay as they are.", "--seal")
    ] = False,
    yes: Annotated[bool, option("Do not ask.", "--yes")] = False,
) -> None:
    """Undo the last step: an experiment on a sealed day, a seal, or an open day.

    A seal can be undone until it is pushed. An open day's images move to data/undone/.
    """
    from dayfold.cycle import opening, sealing
    from dayfold.project import journal

    note = journal.read(current_project())
    with changing("undo") as project:
        if note and note.step == opening.CLOSE:
            return  # the repair has just finished it; do not undo another step
        print(sealing.undo(project, seal=seal, yes=yes))


@command(CYCLE, "dayfold run ~/archive", "backfill", hidden=True)  # its name before 0.2
@command(CYCLE, "dayfold run ~/scans/today")
def run(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A folder, zip or tar of <class>/<image>.")
    ],
    day: Day = None,
    allow_refused: Annotated[bool, option("Exit with 0 instead of 4.", "--allow-refused")] = False,
    verbose: Annotated[bool, option("Show what DVC and the stages print.", "--verbose")] = False,
) -> None:
    """Add, train and seal in one command, for nightly jobs.

    SRC may be a folder of dated folders, <day>/<class>/<image>. After an
    interruption run the same command again.

    Exit code 0: the day is sealed, or there was nothing new.
    3: it does not pass the gate and stays open.
    4: as 0, but files were refused, or known images have another label.
    1: anything else.
    """
    from dayfold.cycle import unattended

    with changing("run") as project:
        dated = unattended.dated_folders(source)
        if dated and day:
            raise CycleError(f"{source} holds dated folders.", hint="leave out --day")
        for path in dated:
            day_of(path.name)  # none may be in the future
        today = None if dated else day_of(day)
        refused = unattended.run(project, dated or [source], day=today, verbose=verbose)
    if sys.stdout.isatty():  # a nightly job has no reader
        say("next: dayfold diff shows what the last day learned, data/reports/index.html all days")
    if refused and not allow_refused:
        say(f"{plural(refused, 'file')} refused: exit code 4, or 0 with --allow-refused")
        raise typer.Exit(RefusedError.exit_code)


@command(CYCLE, "dayfold status")
def status() -> None:
    """Show the day, whether it is sealed, and what to run next."""
    from dayfold.cycle.status import advice

    print("\n".join(advice(current_project(in_conflict=True))))


# Hidden names from before 0.2, until 0.3.


@command(CYCLE, "dayfold add --day 2025-06-04", "open", hidden=True)
def open_(day: str) -> None:
    """Do what `dayfold add --day DAY` does."""
    add(day=day)


@command(CYCLE, "dayfold undo --seal --yes", hidden=True)
def unseal() -> None:
    """Do what `dayfold undo --seal --yes` does."""
    undo(seal=True, yes=True)
