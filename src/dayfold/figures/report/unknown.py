"""What was unknown: today's images as yesterday's model saw them, before it learnt from them."""

from collections.abc import Iterator
from typing import Any

from dayfold.figures import intervals
from dayfold.figures.report.day import Day
from dayfold.ledger import tables
from dayfold.project import params as params_file
from dayfold.project.console import plural

KINDS = {1: "new", 0: "known"}


def sentences(day: Day) -> Iterator[str]:
    """Say how many of today's images yesterday's model would have flagged, a sentence each."""
    found, ends = day.figures["unknown"], day.figures["interval"]["unknown"]
    new, known = (plural(found["images"][kind], "image") for kind in ("new", "known"))
    if not any(found["images"].values()):
        yield "There is no model before this day that knows what its classes look like."
    elif found["found"] is None and found["false_alarms"] is None:
        yield "It called nothing unknown: it had too few validation images to draw a line."
    if found["found"] is not None:
        yield f"Of {new} of new classes yesterday's model would have flagged {found['found']:.1%}."
    if found["auroc"] is not None:
        yield f"AUROC of new against known classes: {found['auroc']:.3f}."
    if (part := found["false_alarms"]) is None:
        return
    low, high = ends["false_alarms"].values()
    yield f"Of {known} of known classes it called {part:.1%} unknown ({low:.1%} to {high:.1%})."
    share = params_file.read(day.project.params).predict.known_share
    if share is not None and low <= 1 - share:
        yield f"{1 - share:.0%} are expected."
    elif share is not None:
        yield (
            f"{1 - share:.0%} are expected: today's images look unlike those of before. Another "
            "device, other settings?"
        )


def rows(day: Day) -> list[dict[str, Any]]:
    """Return the counts of each class, with the part that was called unknown and its interval."""
    return [
        row
        | {
            "kind": KINDS[row["new"]],
            "part": row["unknown"] / row["images"],
            "ends": intervals.proportion(row["unknown"], row["images"]),
        }
        for row in tables.unknown(day.project, day.day).iter_rows(named=True)
        if row["label"] and row["unknown"] is not None
    ]
