"""The commands of the day's cycle."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dayfold.cli.top import CYCLE, Day, ask, changing, command, day_of, here, say
from dayfold.errors import CycleError, RefusedError

Group = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=r"Set data.group: its one (…) finds the patient in an image's path: '/(P\d+)_'.",
    ),
]

Move = Annotated[bool, typer.Option("--move", help="Move the files that are added, not copy them.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Labels of the files in SRC: CSV, or what a labelling tool exports."
    ),
]
Columns = Annotated[
    str,
    typer.Option(metavar="path=A,label=B,…", help="Which column of --labels is what; or group=."),
]
Relabel = Annotated[
    bool, typer.Option("--relabel", help="Correct known images that are given with another label.")
]
Classes = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A CSV theirs,ours of class names, kept for later adds."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Add nothing if any file is refused.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and report, and change nothing.")]
Yes = Annotated[
    bool, typer.Option("--yes", help="Take an odd shape, and guessed columns, as they are.")
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
    network: Annotated[
        str, typer.Option(metavar="resnet18|resnet34|resnet50", help="The network, for good.")
    ] = "resnet18",
    image_size: Annotated[
        int | None,
        typer.Option(min=16, max=1024, help="Pixels a side; as in params.yaml if not given."),
    ] = None,
    remote: Annotated[
        str,
        typer.Option(metavar="URL", help="A folder or URL that DVC shares images and models by."),
    ] = "",
    group: Group = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: make it inside another git repository.")
    ] = False,
) -> None:
    """Create a project: git, DVC, the pipeline, params.yaml and the starting weights.

    ImageNet's weights come from torchvision's cache, or are downloaded. Inside another git
    repository the project gets its own, after a question.
    """
    say(f"making a project in {directory}")
    from dayfold import create

    names = [name.strip() for name in classes.split(",")] if classes else []

    def agreed(question: str) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(question))

    options = create.Options(weights, names, image_size, remote, agreed, group or "", network)
    create.init(directory, options, say=say)
    print(f"{directory} is ready, from {weights} weights")
    print(f"next: cd {directory} && dayfold add FOLDER")


@command(CYCLE, "dayfold add ~/scans/today")
def add(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[SRC]", help="A folder, zip or tar of <class>/<image>."),
    ] = None,
    day: Day = None,
    move: Move = False,
    labels: Labels = None,
    columns: Columns = "",
    relabel: Relabel = False,
    classes: Classes = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    group: Group = None,
) -> None:
    """Check today's images and take the good ones in; starts a new day if needed.

    Without SRC it starts the day only, for images that you put into data/images/DAY/CLASS by hand.
    What is refused stays where it is and is listed in data/rejected/DAY.csv. Exit code 4: files
    were refused, or known images have another label; the others were taken, unless all are refused,
    or with --strict any. Exit code 1: nothing was added, as the delivery has an odd shape, say.
    """
    from dayfold.cycle import added, adding, opening
    from dayfold.project.console import show

    same = shlex.join(["dayfold", "add", str(source), "--labels", str(labels)])

    def agree(guess: str, option: str) -> None:
        ask(f"{guess}. Is this right?", yes=yes, hint=f"{same} {option}")

    options = adding.Options(
        move, strict, dry_run, yes, labels, columns, relabel, classes, group, agree
    )
    today = day_of(day)
    if source is None:
        if options != adding.Options(yes=yes):
            raise CycleError("These options need images to add.", hint="dayfold add FOLDER …")
        with changing("add") as project:
            parent = opening.open_day(project, today)
        for line in opening.opened(project, today, parent):
            say(line)
        say(f"images go to {project.name(project.images(today))}/<class>/")
        return
    with changing("add") as project:
        delivery = adding.add(project, source, day=today, options=options)
    for line in added.said_of_day(project, today, delivery, options):
        say(line)
    show(added.table(today, delivery, options))
    print(added.next_step(delivery, options))
    if delivery.refused or (delivery.changed and not relabel):
        raise typer.Exit(RefusedError.exit_code)


@command(CYCLE, 'dayfold seal -m "first scans of the new probe"')
def seal(
    message: Annotated[str, typer.Option("--message", "-m", help="The commit's message.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Seal a day that fails the gate; --message says why.")
    ] = False,
) -> None:
    """Commit the day and tag it day/<day>; after that it does not change.

    Exit code 3: the day does not pass the gate (params.yaml) and is not sealed.
    """
    from dayfold.cycle import sealing

    with changing("seal") as project:
        print("\n".join(sealing.seal(project, message, force=force)))


@command(CYCLE, "dayfold undo --yes")
def undo(
    seal: Annotated[
        bool, typer.Option("--seal", help="Undo the seal only; all files stay as they are.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Undo the last step: an experiment on a sealed day, a seal, or an open day.

    A seal can be undone until it is pushed. The images of an open day move to data/undone/.
    """
    from dayfold.cycle import sealing

    with changing("undo") as project:
        lines, carry_out = sealing.undo(project, seal=seal)
        print("\n".join(lines))
        ask("Undo it?", yes=yes, hint="dayfold undo --yes")
        print(carry_out())


@command(CYCLE, "dayfold run ~/scans/today")
def run(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A folder, zip or tar of <class>/<image>.")
    ],
    day: Day = None,
    allow_refused: Annotated[
        bool, typer.Option("--allow-refused", help="Exit with 0 although files were refused.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show all that DVC and the stages print.")
    ] = False,
) -> None:
    """Add, train and seal in one command, for nightly jobs.

    SRC may be a folder of dated folders, <day>/<class>/<image>: each is a day, in order; run again,
    it goes on where it was. Files that are refused stop nothing: they are listed in
    data/rejected/DAY.csv.

    Exit code 0: the day is sealed, or there was nothing new; 3: it does not pass the gate
    (params.yaml) and stays open for a person to judge; 4: as 0, but files were refused, or known
    images have another label (0 with --allow-refused); 1: something else went wrong.
    """
    from dayfold.cycle import unattended
    from dayfold.project.console import plural

    with changing("run") as project:
        is_dated = unattended.is_dated(source)
        if is_dated and day:
            raise CycleError(f"{source} holds dated folders.", hint="leave out --day")
        today = None if is_dated else day_of(day)
        refused = unattended.run(project, source, day=today, verbose=verbose, say=say)
    if sys.stdout.isatty():  # a job at night has no reader
        say("next: dayfold diff shows what the last day learned, data/reports/index.html all days")
    if refused and not allow_refused:
        say(f"{plural(refused, 'file')} refused: exit code 4, or 0 with --allow-refused")
        raise typer.Exit(RefusedError.exit_code)


@command(CYCLE, "dayfold status")
def status() -> None:
    """Show the day, whether it is sealed, and what to run next."""
    from dayfold.cycle import standing

    print("\n".join(standing.advice(here(in_conflict=True))))
