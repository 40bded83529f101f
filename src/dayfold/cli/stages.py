"""The six stages as commands: what dvc.yaml calls."""

import os
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

from dayfold.cli.top import STAGES, command, here, without_collector
from dayfold.errors import CycleError
from dayfold.project.console import BRIEF
from dayfold.project.layout import UNOPENED

# What goes by tables of sealed days. In a worktree of `dayfold reproduce`, where no branch is
# checked out and nothing can be sealed, they may be others.
GO_BY_TABLES = ("snapshot", "curve")


def _stage(name: str) -> None:
    from dayfold.project import lifeline, vcs
    from dayfold.project import params as params_file

    if lifeline.DVC_STAGE in os.environ:
        lifeline.tie()
    project = here()
    params = params_file.read(project.params)
    if params.day == UNOPENED:
        raise CycleError("No day is open.", hint="dayfold add FOLDER")
    if name in GO_BY_TABLES and vcs.branch(project.root):
        from dayfold.cycle import hand_edits

        hand_edits.check_tables(project, params, vcs.sealed_days(project.root))
    with without_collector():
        stage = import_module(f"dayfold.stages.{name}")
    if BRIEF not in os.environ:
        stage.run(project, params)
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        lines = stage.run(project, params)
    print("\n".join(lines))


@command(STAGES, "dvc repro snapshot", hidden=True)
def snapshot() -> None:
    """The day's images and corrections → its manifest."""
    _stage("snapshot")


@command(STAGES, "dvc repro weights", hidden=True)
def weights() -> None:
    """Data versions → what an image of each counts for today."""
    _stage("weights")


@command(STAGES, "dvc repro replay", hidden=True)
def replay() -> None:
    """All earlier images → the few that today's training sees again."""
    _stage("replay")


@command(STAGES, "dvc repro train", hidden=True)
def train() -> None:
    """Yesterday's model, today's images and the replay set → today's model."""
    _stage("train")


@command(STAGES, "dvc repro evaluate", hidden=True)
def evaluate() -> None:
    """Today's model on every held-out image → counts, and the classification report."""
    _stage("evaluate")


@command(STAGES, "dvc repro curve", hidden=True)
def curve() -> None:
    """All days' counts → metrics.json and the data of the plots."""
    _stage("curve")
