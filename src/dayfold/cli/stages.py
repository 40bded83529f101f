"""The six stages as commands for dvc.yaml."""

import os
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import typer

from dayfold.cli.top import STAGES, app, current_project, without_collector
from dayfold.errors import CycleError
from dayfold.project.console import BRIEF
from dayfold.project.layout import UNOPENED

_HELP = {
    "snapshot": "The day's images and corrections → its manifest.",
    "weights": "Data versions → what an image of each counts for today.",
    "replay": "All earlier images → the few that today's training sees again.",
    "train": "Yesterday's model, today's images and the replay set → today's model.",
    "evaluate": "Today's model on every held-out image → counts, and the classification report.",
    "curve": "All days' counts → metrics.json and the data of the plots.",
}


def _run(context: typer.Context) -> None:
    from dayfold.project import lifeline, vcs
    from dayfold.project import params as params_file

    name = str(context.info_name)
    if lifeline.DVC_STAGE in os.environ:
        lifeline.tie()
    project = current_project()
    params = params_file.read(project.params)
    if params.day == UNOPENED:
        raise CycleError("No day is open.", hint="dayfold add FOLDER")
    # These read tables of sealed days. A worktree of `dayfold reproduce` has no branch.
    if name in ("snapshot", "curve") and vcs.branch(project.root):
        from dayfold.history import refusals
        from dayfold.history.state import ProjectState

        refusals.check(ProjectState.read(project), "stage")
    with without_collector():
        stage = import_module(f"dayfold.stages.{name}")
    if BRIEF not in os.environ:
        stage.run(project, params)
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        lines = stage.run(project, params)
    print("\n".join(lines))


for _name, _help in _HELP.items():
    app.command(
        _name,
        rich_help_panel=STAGES,
        epilog=f"Example:  dvc repro {_name}",
        help=_help,
        hidden=True,
    )(_run)
