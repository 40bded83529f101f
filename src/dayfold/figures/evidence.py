"""How much there is to judge by: which cohorts and classes have too few test images."""

from typing import NamedTuple

import polars as pl

from dayfold.figures import intervals
from dayfold.ledger.manifest import History


class Few(NamedTuple):
    """The cohorts and the classes with too few test images, each with how many units it has.

    A unit is a group, however many images it has, or an image without one: images of one patient
    are right or wrong together. Classes without a test image have 0.
    """

    cohorts: dict[str, int]
    classes: dict[str, int]

    def sentences(self) -> list[str]:
        """Say which figures tell too little by themselves, a sentence for cohorts and classes."""
        return [
            f"Too few test images to judge {what}: "
            + ", ".join(f"{name} ({count})" for name, count in of.items())
            + "."
            for what, of in (("these cohorts", self.cohorts), ("these classes", self.classes))
            if of
        ]


def few(history: History) -> Few:
    """Return what of a history has too few test images (`intervals.is_too_few`), sorted by name."""
    unit = pl.when(pl.col("group") == "").then("image").otherwise("group")
    tested = history.split("test").with_columns(unit.alias("unit"))
    found = []
    for key in ("day", "label"):
        counts = dict.fromkeys(history.images[key].unique().sort(), 0)
        counts |= tested.group_by(key).agg(pl.col("unit").n_unique()).sort(key).iter_rows()
        found.append({name: n for name, n in counts.items() if intervals.is_too_few(n)})
    return Few(*found)
