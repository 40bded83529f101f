"""Commands that look back, and the backtest."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dayfold.cli.top import HISTORY, command, days_of, here, option, warn_of_edits
from dayfold.errors import CycleError, DayfoldError
from dayfold.project.console import plural, say, show
from dayfold.project.layout import check_day

if TYPE_CHECKING:
    from dayfold.figures.day import Day
    from dayfold.figures.report.pictures import Heat


@command(HISTORY, "dayfold log --all")
def log(
    last: Annotated[int, option("How many days.", "--last", "-n", metavar="N", min=1)] = 30,
    every: Annotated[bool, option("More figures a day.", "--all")] = False,
) -> None:
    """Show the last days and their figures; docs/metrics.md defines each."""
    from dayfold.figures import evidence, gate
    from dayfold.figures import log as history
    from dayfold.ledger import manifest
    from dayfold.project.layout import ORIGIN

    project = here()
    now = warn_of_edits(project)
    lines = history.lines(project, now.params, last)
    forced = gate.forced(project)
    verdicts = history.verdicts(project, lines, forced)
    images = manifest.history(project, lines[-1].day if lines else ORIGIN)
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
    project = here()
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

    project = here()
    now = warn_of_edits(project)
    found = read(project, check_day(day) if day else None)
    if png:
        page.write_curve(found, png)
        print(f"the forgetting curve is drawn in {png}")
        return
    path = page.write(found, _heat(found) if now.params.report.heat else None)
    print(f"{project.name(path)}: {path.stat().st_size / 1e6:.1f} MB, self-contained")
    days = [day for day in now.sealed if not project.images(day).is_dir()]
    if gone := [day for day in days if pins.of_images(project, day)]:
        print(
            f"no pictures from {len(gone)} of {len(now.sealed)} days: their images are not here "
            "yet; dvc checkout || dvc pull, then dayfold report"
        )
    if show and not webbrowser.open(path.as_uri()):
        print("no browser was found here; open the file in one")


def _heat(day: "Day") -> "Heat | None":
    """Return what draws heat maps by a day's model; None, noted as missing, without it."""
    from dayfold.serve import heat
    from dayfold.serve import model as models

    try:  # nothing is fetched for a picture
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
        option("The project's params with this change.", "--set", metavar="KEY=VALUE"),
    ] = None,
    days: Annotated[str, option("Which days; all by default.", metavar="A..B")] = "",
    seeds: Annotated[int, option("How many seeds, from the project's.", min=1)] = 1,
) -> None:
    """Compare policies on the project's history; docs/retention.md explains them."""
    from dayfold import backtest as replayed

    project = here()
    policies = replayed.policies(policy or [], changes or [])
    first, last = days_of(days)
    table, notes = replayed.compare(
        project, policies=policies, first=first, last=last, seeds=seeds, say=say
    )
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

    walkthrough.run(directory, say=say)
