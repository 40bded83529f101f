"""The index of all days: the forgetting curve, and a line a day."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dayfold.figures import charts, evidence, log
from dayfold.figures.report import html
from dayfold.figures.report.day import minutes
from dayfold.ledger import tables
from dayfold.ledger.tables import CohortAccuracy
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project

# The columns of figures, by their keys in metrics.json.
COLUMNS = {
    "average_accuracy": "average accuracy",
    "weighted_f1": "weighted F1",
    "worst_f1": "worst F1",
    "forgetting": "forgetting",
    "negative_flip_rate": "newly wrong",
}


def write(project: Project, *, forced: Mapping[str, str]) -> Path:
    """Write data/reports/index.html: cheaply, as every `seal` does so; return its path.

    `forced` are the days that were sealed by force, each with why.
    """
    params = params_file.read(project.params)
    lines = [line for line in log.lines(project, params) if line.figures]
    verdicts = log.verdicts(
        project, lines, sealed=vcs.sealed_days(project.root), forced=list(forced)
    )
    # Of `curve`: the evaluations themselves take longer to read with each day.
    cells = tables.read(project.plot("cohorts"), CohortAccuracy)
    tested = dict.fromkeys((cells["images"].min(), cells["images"].max()))
    path = project.report("index")
    text = html.render(
        "index.html",
        name=project.root.name,
        curve=charts.forgetting_curve(map(CohortAccuracy._make, cells.iter_rows())),
        on=f", {' to '.join(map(str, tested))} of them" * bool(len(cells)),
        minutes=minutes(project, [line.day for line in lines]),
        columns=[(title, "number") for title in COLUMNS.values()],
        days=[
            (
                line,
                [_shown(line.figures or {}, key) for key in COLUMNS],
                verdicts[line.day],
                project.report(line.day).exists(),
            )
            for line in reversed(lines)
        ],
    )
    write_bytes(path, text.encode())
    return path


def _shown(figures: Mapping[str, Any], key: str) -> str:
    return html.figure(figures[key]) if figures[key] is None else evidence.shown(figures, key)
