"""Names of before 0.2, hidden; they go with 0.3."""

from pathlib import Path

from dayfold.cli import daily, proof
from dayfold.cli.top import CYCLE, PROOF, command, here, say


@command(CYCLE, "dayfold add --day 2025-06-04", name="open", hidden=True)
def open_(day: str) -> None:
    """Do what `dayfold add --day DAY` does."""
    daily.add(day=day)


@command(CYCLE, "dayfold run ~/archive", hidden=True)
def backfill(source: Path) -> None:
    """Do what `dayfold run` does with a folder of dated folders, and refuse any other."""
    from dayfold.cycle import unattended
    from dayfold.cycle.ready import ready

    project = here()
    with ready(project, "backfill", say=say):
        unattended.backfill(project, source, say=say)


@command(CYCLE, "dayfold undo --seal --yes", hidden=True)
def unseal() -> None:
    """Do what `dayfold undo --seal --yes` does."""
    daily.undo(seal=True, yes=True)


@command(PROOF, "dayfold check --read-data", hidden=True)
def verify(read_data: bool = False) -> None:
    """Do what `dayfold check` does."""
    proof.check(read_data=read_data)


@command(PROOF, "dayfold check --fix", hidden=True)
def doctor(fix: bool = False) -> None:
    """Do what `dayfold check` does."""
    proof.check(fix=fix)
