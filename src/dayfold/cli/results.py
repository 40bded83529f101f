"""Commands that show results, and prove them."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dayfold.cli.top import (
    HISTORY,
    MODEL,
    PROOF,
    command,
    current_project,
    days_of,
    option,
    warn_of_edits,
    without_collector,
)
from dayfold.errors import CycleError, DayfoldError, IntakeError
from dayfold.project import vcs
from dayfold.project.console import plural, say, show
from dayfold.project.layout import LOG_DAYS, check_day

if TYPE_CHECKING:
    from dayfold.figures.day import Day
    from dayfold.figures.report.pictures import Heat

ModelDay = Annotated[
    str | None,
    option("By default the last that did not fail its gate.", "--day", metavar="YYYY-MM-DD"),
]


@command(HISTORY, "dayfold log --all")
def log(
    last: Annotated[int, option("How many days.", "--last", "-n", metavar="N", min=1)] = LOG_DAYS,
    every: Annotated[bool, option("More figures a day.", "--all")] = False,
) -> None:
    """Show the last days and their figures; docs/metrics.md defines each."""
    from dayfold.figures import evidence, gate
    from dayfold.figures import log as history

    project = current_project()
    now = warn_of_edits(project)
    images, lines = history.read(project, now.params, last)
    forced = gate.forced(project)
    verdicts = history.verdicts(project, lines, forced)
    known = evidence.of(
        images, most=now.params.evaluate.max_per_cohort, origin=now.params.origin.classes
    )
    show(history.table(lines, verdicts, unit=known.unit))
    if every:
        print()
        show(history.more(lines))
        print()
    gone = len(images.withdrawn)
    if earlier := len(images.days) - len(lines):
        print(f"{plural(earlier, 'earlier day')}: dayfold log -n {len(images.days)}")
    notes = history.notes(lines, verdicts, forced, known, with_more=every, withdrawn=gone)
    print(*history.LEGEND, *history.MORE_LEGEND * every, *notes, sep="\n")


@command(HISTORY, "dayfold diff 2025-06-02 2025-06-04")
def diff(
    days: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DAY [DAY]]", help="The last day with figures by default."),
    ] = None,
) -> None:
    """Show what a day learned and lost since the day before, or between two days.

    All figures: dvc metrics diff --targets data/metrics/day.json.
    """
    from dayfold.figures import diff as compared

    if len(days or ()) > 2:
        raise CycleError("At most two days can be compared.", hint="dayfold diff DAY DAY")
    project = current_project()
    now = warn_of_edits(project)
    sides = compared.sides(project, now.params, [check_day(day) for day in days or ()])
    both = compared.shared(project, sides)
    first, *rest = compared.sentences(sides, both)
    print(first)
    show(compared.table(sides, both))
    print(*rest, sep="\n")


@command(HISTORY, "dayfold report --day 2025-06-04 --open")
def report(
    day: Annotated[
        str | None, option("The last with figures by default.", "--day", metavar="YYYY-MM-DD")
    ] = None,
    show: Annotated[bool, option("Open it in the browser.", "--open")] = False,
    png: Annotated[
        Path | None, option("Draw the forgetting curve alone.", "--png", metavar="FILE")
    ] = None,
) -> None:
    """Write a day's report: one self-contained HTML file."""
    import webbrowser

    from dayfold.figures.day import read
    from dayfold.figures.report import page
    from dayfold.project import pins

    project = current_project()
    now = warn_of_edits(project)
    found = read(project, check_day(day) if day else None)
    if png:
        page.write_curve(found, png)
        print(f"the forgetting curve is drawn in {png}")
        return
    say(f"drawing {found.day}; loading PyTorch for the heat maps takes some seconds")
    path = page.write(found, _heat(found))
    print(f"{project.name(path)}: {path.stat().st_size / 1e6:.1f} MB, self-contained")
    days = [day for day in now.sealed if not project.images(day).is_dir()]
    if gone := [day for day in days if pins.of_images(project, day)]:
        print(
            f"no pictures from {len(gone)} of {len(now.sealed)} days: their images are not here "
            f"yet; {vcs.TO_FETCH}, then dayfold report"
        )
    if show and not webbrowser.open(path.as_uri()):
        print("no browser was found here; open the file in one")


def _heat(day: "Day") -> "Heat | None":
    with without_collector():
        from dayfold.serve import heat
        from dayfold.serve import model as models

    try:  # do not fetch a model for pictures
        return partial(heat.heat_pictures, models.load_model(day.project, day.day, fetch=False))
    except DayfoldError as error:
        day.missing[day.project.name(day.project.model)] = error.what
        return None


@command(HISTORY, "dayfold backtest --policy project --policy naive --seeds 3")
def backtest(
    policy: Annotated[
        list[str] | None,
        option(
            "naive, replay, project, joint, cumulative, scratch, frozen; all by default.",
            "--policy",
            metavar="NAME",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        option("Also run params.yaml with this change.", "--set", metavar="KEY=VALUE"),
    ] = None,
    days: Annotated[str, option("Which days; all by default.", metavar="A..B")] = "",
    seeds: Annotated[int, option("How many seeds, from the project's.", min=1)] = 1,
) -> None:
    """Compare policies on the project's history; docs/retention.md explains them."""
    from dayfold import backtest as replayed

    project = current_project()
    policies = replayed.policies(policy or [], changes or [])
    first, last = days_of(days)
    table, notes = replayed.compare(project, policies, first=first, last=last, seeds=seeds)
    show(table)
    stored = f"stored in {project.name(project.backtest_curves.parent)}/; curves in curves.png"
    print(*notes, stored, sep="\n")


@command(HISTORY, "dayfold demo demo/", hidden=True)
def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder, or an earlier demo.")
    ],
) -> None:
    """Run the whole cycle on scikit-learn's handwritten digits, six days in a few minutes."""
    from dayfold import demo as walkthrough

    walkthrough.run(directory)


@command(MODEL, "dayfold predict ~/scans/unlabelled --csv predicted.csv")
def predict(
    sources: Annotated[
        list[Path], typer.Argument(metavar="IMAGE|FOLDER…", help="Images, and folders of them.")
    ],
    day: ModelDay = None,
    output: Annotated[
        Path | None,
        option("Write a line for each image to FILE.", "--csv", "--output", "-o", metavar="FILE"),
    ] = None,
    top: Annotated[int, option("Classes to list for each image.", min=1)] = 1,
    queue: Annotated[
        int | None, option("Write to FILE which N images to label next.", min=1, metavar="N")
    ] = None,
    form: Annotated[
        str, option("What --queue writes.", "--format", metavar="csv|label-studio")
    ] = "csv",
) -> None:
    """Classify images with confidence; below predict.threshold the answer is "not sure".

    Exit code 4: an image, or a file that you named, cannot be read; all others are answered.
    """
    with without_collector():
        from dayfold.serve import model as models
        from dayfold.serve import predicting

    is_queue = len(sources) == 1 and sources[0].is_dir() and output and top == 1
    if not is_queue if queue else form != "csv":
        what = "--queue takes one folder and a file to write; --top does not go with it."
        raise IntakeError(what, hint="dayfold predict FOLDER --queue 50 -o queue.csv")
    if output and (output.is_dir() or str(output) == "-"):
        raise IntakeError(f"{output} is not a file.", hint="name a file: --csv predicted.csv")
    paths, project = [] if queue else predicting.images(sources), current_project()
    model = models.load(project.root, day)
    say(models.describe_choice(project, model.day, day))
    if queue and output:
        predicting.write_queue(project, model, sources[0], count=queue, file=output, form=form)
        return
    named = [path for path in sources if not path.is_dir()]
    predicting.predict(model, paths, named=named, top=top, csv=output)


@command(MODEL, "dayfold export scans.onnx --day 2025-06-04")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    day: ModelDay = None,
    form: Annotated[
        str | None,
        option(
            "By default by ending: .onnx, .safetensors, .md (the card alone).",
            "--format",
            metavar="onnx|safetensors|card",
        ),
    ] = None,
) -> None:
    """Export a day's model for other programs, checked, with a README and a model card."""
    with without_collector():
        from dayfold.serve import exporting

    meant, project = exporting.form_of(file, form), current_project()
    warn_of_edits(project)
    for path in exporting.export(project, file, day=day, form=meant):
        print(f"written: {path}")


@command(MODEL, "dayfold audit --html")
def audit(
    top: Annotated[
        int | None, option("Images to list; all doubtful ones by default.", min=1)
    ] = None,
    html: Annotated[bool, option("Also write a page with the pictures.", "--html")] = False,
) -> None:
    """List images whose label is probably wrong, new ones first, in data/audit/<day>.csv.

    Decide there; `dayfold relabel --from` applies it.
    """
    with without_collector():
        from dayfold.serve import auditing

    project = current_project()
    found = auditing.run(project, top=top)
    print(*auditing.summary(found, project), sep="\n")
    if html:
        auditing.write_page(project, found)
        print(f"HTML page: {project.name(project.audit_page(found.day))}")


@command(PROOF, "dayfold reproduce --all --from-scratch")
def reproduce(
    days: Annotated[
        list[str] | None, typer.Argument(metavar="DAY…", help="Sealed days, YYYY-MM-DD.")
    ] = None,
    everything: Annotated[bool, option("All sealed days.", "--all")] = False,
    from_scratch: Annotated[
        bool,
        option("Start each day from the one just made, with an empty cache.", "--from-scratch"),
    ] = False,
    restore: Annotated[
        bool, option("Put outputs of identical days back into DVC's cache.", "--restore")
    ] = False,
    here_: Annotated[
        bool,
        option("Make days of another version with this one; compare figures.", "--here"),
    ] = False,
) -> None:
    """Make sealed days again and compare every output with what was recorded.

    Exit code 0 only when all are identical, to the bit, or with `--here` within their intervals.
    """
    from dayfold.proof import reproduce as rebuild

    if everything == bool(days):
        raise CycleError("Which days?", hint="dayfold reproduce 2025-06-04, or --all")
    flags = {"from_scratch": from_scratch, "restore": restore, "here": here_}
    results = rebuild.reproduce(current_project(), days or [], **flags)
    print(f"\n{rebuild.summary(results)}")
    if not all(result.is_as_expected for result in results):
        raise typer.Exit(1)


# Hidden names from before 0.2, until 0.3.
@command(PROOF, "dayfold check --read-data", "verify", hidden=True)
@command(PROOF, "dayfold check --fix", "doctor", hidden=True)
@command(PROOF, "dayfold check --fix")
def check(
    read_data: Annotated[
        bool, option("Read every image, model and object as well.", "--read-data")
    ] = False,
    fix: Annotated[bool, option("Fix what can be fixed without losing anything.", "--fix")] = False,
) -> None:
    """Check machine, project and the history back to the first day; suggest fixes.

    Exit code 0 only when nothing is left to fix.
    """
    from dayfold.cycle.ready import ready
    from dayfold.proof import check as checks

    project = current_project()
    if fix:
        with suppress(CycleError), ready(project, "check"):
            pass  # `examine` reports below why it is not ready
    left = checks.examine(project, fix=fix, read_data=read_data)
    if left:
        raise typer.Exit(1)
