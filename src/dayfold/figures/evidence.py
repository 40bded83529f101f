"""What is too few to judge by.

Images of one patient tend to be right or wrong together. So figures rest on a number of units:
patients, and images without a patient. Only this file says how many units are enough.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import polars as pl

from dayfold import draws
from dayfold.figures import intervals
from dayfold.figures.intervals import Z, figure
from dayfold.ledger.manifest import History
from dayfold.project.console import first_few, plural

WIDEST = 0.4  # the width of a proportion's interval above which there are too few units
FEW = "too few to judge"


def is_too_few(units: int) -> bool:
    """Return whether the Wilson interval of a proportion of n units can be wider than WIDEST.

    It is widest where half are hits: Z / sqrt(n + Z²), above 0.4 up to n = 20.
    """
    return Z / math.sqrt(units + Z**2) > WIDEST


ENOUGH = next(units for units in count(1) if not is_too_few(units))
_IS_ALONE = pl.col("group") == ""
# The number of units in a table of images.
UNITS = (_IS_ALONE.sum() + pl.col("group").filter(~_IS_ALONE).n_unique()).alias("units")


def unit_of(images: pl.DataFrame) -> str:
    return "patient" if (images["group"] != "").any() else "image"


@dataclass(frozen=True)
class Evidence:
    """How many units of a day were tested: by cohort, by class, and in all.

    Classes without a test image have 0. `earlier` counts the units of cohorts before the day.
    `unseen` are classes of the origin that have never had an image here.
    """

    unit: str
    cohorts: dict[str, int]
    classes: dict[str, int]
    all: int
    earlier: int
    unseen: tuple[str, ...] = ()

    def caveat(self, units: int) -> str:
        """Return "too few to judge: 3 patients", or "" where there are enough."""
        return f"{FEW}: {plural(units, self.unit)}" if is_too_few(units) else ""

    def of_class(self, label: str) -> str:
        return self.caveat(self.classes.get(label, 0))

    def on(self, images: int) -> str:
        """Return "36 test images", or "143 test images of 21 patients"."""
        of = "" if self.unit == "image" else f" of {plural(self.all, self.unit)}"
        return plural(images, "test image") + of

    def sentences(self) -> list[str]:
        """Return a sentence on the cohorts, and one on the classes, that have too few units."""
        found = [f"{no_image(self.unseen)}: neither replayed nor tested."] * bool(self.unseen)
        if is_too_few(self.all):
            return [*found, f"Too few test {self.unit}s to judge any figure: {self.all} in all."]
        both = (self._few("cohorts", self.cohorts), self.of_classes())
        return found + [sentence for sentence in both if sentence]

    def of_classes(self) -> str:
        return self._few("classes", self.classes)

    def _few(self, what: str, of: Mapping[str, int]) -> str:
        few = [f"{name} ({plural(n, self.unit)})" for name, n in of.items() if is_too_few(n)]
        named = ", ".join(first_few(few))
        return f"Too few test {self.unit}s to judge these {what}: {named}." * bool(few)


def no_image(classes: Collection[str]) -> str:
    return f"{', '.join(classes)}: known to the model, no image here"


def unseen(history: History, origin: Sequence[str]) -> tuple[str, ...]:
    corrections = history.corrections
    labels = (history.images["label"], corrections["before"], corrections["label"])
    ever = {label for column in labels for label in column.unique()} if origin else set()
    return tuple(name for name in origin if name not in ever)


def of(
    history: History, *, day: str | None = None, most: int | None = None, origin: Sequence[str] = ()
) -> Evidence:
    """Count the tested units of `day` (by default the last), under the labels of that day.

    `most` is `evaluate.max_per_cohort`, `origin` are `origin.classes`.
    """
    day = day or max(history.days, default="")
    # Images corrected or withdrawn later count as they were on the day.
    later = history.corrections.filter(pl.col("on") > day).unique("image", keep="first")
    columns, is_later = ("image", "label", "group", "split", "day"), pl.col("day") > day
    images = history.images.filter(~(is_later | pl.col("image").is_in(later["image"].implode())))
    later = later.with_columns(label="before").filter(~is_later)
    known = pl.concat([images.select(columns), later.select(columns)])
    tested = sample(known.filter(split="test"), most)
    cohorts, classes = (
        dict.fromkeys(known[key].unique().sort().to_list(), 0)
        | dict(tested.group_by(key).agg(UNITS).iter_rows())
        for key in ("day", "label")
    )
    return Evidence(
        unit_of(known),
        cohorts,
        classes,
        all=tested.select(UNITS).item(),
        earlier=tested.filter(pl.col("day") < day).select(UNITS).item(),
        unseen=unseen(history, origin),
    )


def sample(held: pl.DataFrame, most: int | None) -> pl.DataFrame:
    """Return `most` images of every day and split (None: all), in the order given.

    The sample is uniform, by a hash of the image. It is the same on every day and for every seed,
    and a smaller sample is part of a larger one.
    """
    if most is None:
        return held
    key = pl.Series("key", draws.uniforms("evaluate", ids=held["image"].to_list()))
    turn = pl.col("key").rank("ordinal").over("day", "split")
    return held.with_columns(key).filter(turn <= most).drop("key")


def judge(figures: dict[str, Any], known: Evidence, new: Collection[str]) -> None:
    """Note in a day's figures how many units they rest on, and which classes are judged.

    In `evidence`, `worst` counts the units of the worst class and `new` those of the smallest new
    class. `new.judged` is None if no class is new.
    """
    classes = figures["classes"]
    for label, scores in classes.items():
        scores["judged"] = not is_too_few(known.classes.get(label, 0))
    worst = [label for label, scores in classes.items() if scores["f1"] == figures["worst_f1"]]
    figures["evidence"] = {
        "all": known.all,
        "earlier": known.earlier,
        "worst": min((known.classes.get(label, 0) for label in worst), default=0),
        "new": min((known.classes.get(label, 0) for label in new), default=0),
    }
    figures["new"]["judged"] = is_judged(figures, "new.f1") if new else None
    if is_too_few(known.all):
        figures["worse_than_yesterday"]["significant"] = None


def is_judged(figures: Mapping[str, Any], key: str) -> bool:
    """Return whether a figure of a day rests on enough units, as `judge` counted them."""
    if key.startswith("unknown."):
        kind = "known" if key == "unknown.false_alarms" else "new"
        return not is_too_few(figures["unknown"]["units"][kind])
    rests_on = {"forgetting": "earlier", "backward_transfer": "earlier", "worst_f1": "worst"}
    units = rests_on.get(key, "new" if key.startswith("new.") else "all")
    return not is_too_few(figures["evidence"][units])


def value_of(figures: Any, key: str) -> Any:
    """Return the value at a dotted key such as new.f1 in the figures of a day, or None."""
    for part in key.split("."):
        figures = figures.get(part) if figures else None
    return figures


def text_rows(
    figures: Mapping[str, Any], names: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """Return (key, name, value, interval) as text for each key of `names` that is defined."""
    found = []
    for key, name in names.items():
        if (value := value_of(figures, key)) is not None:
            ends = intervals.as_text(value_of(figures["interval"], key))
            few = f", {FEW}" * bool(ends and not is_judged(figures, key))
            found.append((key, name, figure(value), ends + few))
    return found


def as_text(figures: Mapping[str, Any], key: str) -> str:
    """Return a figure of a day as text; "few" where it is not judged."""
    value = value_of(figures, key)
    return figure(value) if value is None or is_judged(figures, key) else "few"
