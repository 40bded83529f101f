"""The commands that check: days made again, hashes read again, the state of a project."""

from contextlib import suppress
from typing import Annotated

import typer

from dayfold.cli.top import PROOF, command, here, say
from dayfold.errors import CycleError


@command(PROOF, "dayfold reproduce --all --from-scratch")
def reproduce(
    days: Annotated[
        list[str] | None, typer.Argument(metavar="DAY…", help="Sealed days, YYYY-MM-DD.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All sealed days.")] = False,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="From the origin on, each day from the one just made, with an empty cache.",
        ),
    ] = False,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Give DVC's cache what it lost of a day that is identical."),
    ] = False,
    here_: Annotated[
        bool,
        typer.Option(
            "--here",
            help="Make days of another version by this one, and compare their figures (level D).",
        ),
    ] = False,
) -> None:
    """Make sealed days again and compare every output with what was recorded.

    Exit code 0 only when all are identical, to the bit; with `--here` also when the figures of days
    of another version are within their recorded intervals.
    """
    from dayfold.proof import reproduce as rebuild

    if everything == bool(days):
        raise CycleError("Which days?", hint="dayfold reproduce 2025-06-04, or --all")
    flags = {"from_scratch": from_scratch, "restore": restore, "here": here_}
    results = rebuild.reproduce(here(), days or [], say=say, **flags)
    print(f"\n{rebuild.summary(results)}")
    if not all(result.is_as_expected for result in results):
        raise typer.Exit(1)


@command(PROOF, "dayfold check --fix")
def check(
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Read every image, model and cached object as well.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Fix what can be fixed without losing anything.")
    ] = False,
) -> None:
    """Check machine, project and the history back to the first day; suggest fixes.

    Exit code 0 only when nothing is left to fix; each problem is named with its repair.
    """
    from dayfold.cycle.ready import ready
    from dayfold.proof import check as checks

    project = here()
    if fix:
        with suppress(CycleError), ready(project, "check", say=say):
            pass  # what is not ready is told below
    left = checks.examine(project, fix=fix, read_data=read_data, say=say)
    if left:
        raise typer.Exit(1)
