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
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many days at a time.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=512, help="A control: train with so many threads, to see B differ, not A."
        ),
    ] = None,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Give DVC's cache what it lost of a day that is identical."),
    ] = False,
    without: Annotated[
        bool,
        typer.Option("--without", help="Without the images that were erased: another history."),
    ] = False,
) -> None:
    """Make sealed days again and compare every output with what was recorded.

    Exit code 0 only when all are identical, to the bit; with `--without` when those are that come
    before the first erased image, and all others could be made.
    """
    from dayfold.proof import reproduce as again

    if everything == bool(days):
        raise CycleError("Which days?", mend="dayfold reproduce 2025-06-04, or --all")
    if without:
        if jobs > 1 or threads is not None or restore:
            raise CycleError(
                "--without makes another history, a day at a time.",
                mend="leave out --jobs, --threads and --restore",
            )
        _without(days or [], from_scratch=from_scratch)
        return
    results = again.reproduce(
        here(),
        days or [],
        from_scratch=from_scratch,
        jobs=jobs,
        threads=threads,
        restore=restore,
        say=say,
    )
    print(f"\n{again.summary(results)}")
    if not all(result.identical for result in results):
        raise typer.Exit(1)


def _without(days: list[str], *, from_scratch: bool) -> None:
    from dayfold.proof import without

    results = without.without(here(), days, from_scratch=from_scratch, say=say)
    print(f"\n{without.summary(results)}")
    if not without.is_as_expected(results):
        raise typer.Exit(1)


@command(PROOF, "dayfold check --fix")
def check(
    read_data: Annotated[
        bool,
        typer.Option("--read-data", help="Read every image, model and cached object as well."),
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Fix what can be fixed without losing anything.")
    ] = False,
) -> None:
    """Check machine, project and the history back to the first day; suggest fixes.

    Exit code 0 only when nothing is left to fix; each problem is named with its repair.
    """
    from dayfold.cycle.ready import ready
    from dayfold.proof import doctor as examined

    project = here()
    if fix:
        with suppress(CycleError), ready(project, "check", say=say):
            pass  # what is not ready is told below
    left = examined.examine(project, fix=fix, read_data=read_data, say=say)
    if left:
        raise typer.Exit(1)
