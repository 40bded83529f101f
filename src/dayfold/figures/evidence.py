"""What is too few to judge by."""

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

WIDEST = 0.4  # an interval of a proportion that may be wider says too little to judge by
FEW = "too few to judge"


def is_too_few(units: int) -> bool:
    """Whether the Wilson interval of a proportion of so many may be wider than WIDEST.

    It is widest where half are hits: Z / sqrt(n + Z²), above 0.4 up to n = 20.
    """
    return Z / math.sqrt(units + Z**2) > WIDEST


ENOUGH = next(units for units in count(1) if not is_too_few(units))
_IS_ALONE = pl.col("group") == ""
# How many units the rows of a table are, an image each. One without a group is one by itself.
UNITS = (_IS_ALONE.sum() + pl.col("group").filter(~_IS_ALONE).n_unique()).alias("units")


def unit_of(images: pl.DataFrame) -> str:
    """Return what such images are counted in: "patient" where any has a group, else "image"."""
    return "patient" if (images["group"] != "").any() else "image"


@dataclass(frozen=True)
class Evidence:
    """How many units with test images each cohort and class of a day has, and all together.

    A unit is a group (a patient), however many images it has: images of one patient are right or
    wrong together. An image without a group is one by itself. Classes without a test image have 0.
    `earlier` counts the units of the cohorts before the day. `unseen` are classes that the origin
    knew and that have had no image here.
    """

    unit: str
    cohorts: dict[str, int]
    classes: dict[str, int]
    all: int
    earlier: int
    unseen: tuple[str, ...] = ()

    def caveat(self, units: int) -> str:
        """Return "too few to judge: 3 patients"; nothing where there are enough."""
        return f"{FEW}: {plural(units, self.unit)}" if is_too_few(units) else ""

    def of_class(self, label: str) -> str:
        """The `caveat` of a class."""
        return self.caveat(self.classes.get(label, 0))

    def on(self, images: int) -> str:
        """Return "36 test images", or "143 test images of 21 patients"."""
        of = "" if self.unit == "image" else f" of {plural(self.all, self.unit)}"
        return plural(images, "test image") + of

    def sentences(self) -> list[str]:
        """Say which figures tell too little by themselves, a sentence for cohorts and classes."""
        found = [f"{no_image(self.unseen)}: neither replayed nor tested."] * bool(self.unseen)
        if is_too_few(self.all):
            return [*found, f"Too few test {self.unit}s to judge any figure: {self.all} in all."]
        both = (self._few("cohorts", self.cohorts), self.of_classes())
        return found + [sentence for sentence in both if sentence]

    def of_classes(self) -> str:
        """Name the classes that have too few units; nothing where none has."""
        return self._few("classes", self.classes)

    def _few(self, what: str, of: Mapping[str, int]) -> str:
        few = [f"{name} ({plural(n, self.unit)})" for name, n in of.items() if is_too_few(n)]
        named = ", ".join(first_few(few))
        return f"Too few test {self.unit}s to judge these {what}: {named}." * bool(few)


def no_image(classes: Collection[str]) -> str:
    """Say of classes that the origin knows and that have had no image here."""
    return f"{', '.join(classes)}: known to the model, no image here"


def unseen(history: History, origin: Sequence[str]) -> tuple[str, ...]:
    """Return those of the origin's classes that no image has ever been labelled with."""
    ever = {*history.images["label"], *history.corrections["before"], *history.corrections["label"]}
    return tuple(name for name in origin if name not in ever)


def of(
    history: History, *, day: str | None = None, most: int | None = None, origin: Sequence[str] = ()
) -> Evidence:
    """Return what the figures of `day` (by default the last) rest on, under the labels of then.

    `most` is `evaluate.max_per_cohort`, `origin` are `origin.classes`.
    """
    day = day or max(history.days, default="")
    # What was corrected or withdrawn later stands as it was.
    later = history.corrections.filter(pl.col("on") > day).unique("image", keep="first")
    images = history.images.join(later, on="image", how="anti")
    columns = ("image", "label", "group", "split", "day")
    known = pl.concat(
        [images.select(columns), later.with_columns(label="before").select(columns)]
    ).filter(pl.col("day") <= day)
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
    """Return `most` images of every day and split (all of them with None), in the order given.

    A uniform sample by a hash of the image: the same on every day, whatever the seed, and one of
    a smaller size is part of it.
    """
    if most is None:
        return held
    key = pl.Series("key", draws.uniforms("evaluate", ids=held["image"].to_list()))
    turn = pl.col("key").rank("ordinal").over("day", "split")
    return held.with_columns(key).filter(turn <= most).drop("key")


def judge(figures: dict[str, Any], known: Evidence, new: Collection[str]) -> None:
    """Write into a day's figures how many units they rest on, and which classes are judged.

    `worst` counts those of the worst class, `new` those of the new class that has fewest.
    `new.judged` is None where no class is new.
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
    """Whether a figure of a day, by its name there, rests on enough (`judge`)."""
    if key.startswith("unknown."):
        kind = "known" if key == "unknown.false_alarms" else "new"
        return not is_too_few(figures["unknown"]["units"][kind])
    rests_on = {"forgetting": "earlier", "backward_transfer": "earlier", "worst_f1": "worst"}
    units = rests_on.get(key, "new" if key.startswith("new.") else "all")
    return not is_too_few(figures["evidence"][units])


def value_of(figures: Any, key: str) -> Any:
    """Return what stands at a name such as new.f1 in the figures of a day, or None."""
    for part in key.split("."):
        figures = figures.get(part) if figures else None
    return figures


def told(figures: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Return the defined ones of these figures: key, what it is called, value and interval."""
    found = []
    for key, said in names.items():
        if (value := value_of(figures, key)) is not None:
            ends = intervals.said(value_of(figures["interval"], key))
            few = f", {FEW}" * bool(ends and not is_judged(figures, key))
            found.append((key, said, figure(value), ends + few))
    return found


def shown(figures: Mapping[str, Any], key: str) -> str:
    """Return a figure of a day by its name there; "few" where it is not judged."""
    value = value_of(figures, key)
    return figure(value) if value is None or is_judged(figures, key) else "few"
