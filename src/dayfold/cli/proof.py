"""Commands that check what is recorded."""

from contextlib import suppress
from typing import Annotated

import typer

from dayfold.cli.top import PROOF, command, here, option
from dayfold.errors import CycleError


@command(PROOF, "dayfold reproduce --all --from-scratch")
def reproduce(
    days: Annotated[
        list[str] | None, typer.Argument(metavar="DAY…", help="Sealed days, YYYY-MM-DD.")
    ] = None,
    everything: Annotated[bool, option("All sealed days.", "--all")] = False,
    from_scratch: Annotated[
        bool, option("Each day from the one just made, with an empty cache.", "--from-scratch")
    ] = False,
    restore: Annotated[
        bool, option("Put outputs of identical days back into DVC's cache.", "--restore")
    ] = False,
    here_: Annotated[
        bool,
        option("Make days of another version by this one; compare figures (level D).", "--here"),
    ] = False,
) -> None:
    """Make sealed days again and compare every output with what was recorded.

    Exit code 0 only when all are identical, to the bit, or with `--here` within their intervals.
    """
    from dayfold.proof import reproduce as rebuild

    if everything == bool(days):
        raise CycleError("Which days?", hint="dayfold reproduce 2025-06-04, or --all")
    flags = {"from_scratch": from_scratch, "restore": restore, "here": here_}
    results = rebuild.reproduce(here(), days or [], **flags)
    print(f"\n{rebuild.summary(results)}")
    if not all(result.is_as_expected for result in results):
        raise typer.Exit(1)


# Names of before 0.2, hidden; they go with 0.3.
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

    project = here()
    if fix:
        with suppress(CycleError), ready(project, "check"):
            pass  # what is not ready is told below
    left = checks.examine(project, fix=fix, read_data=read_data)
    if left:
        raise typer.Exit(1)
