"""snapshot: the day's folder and corrections → the manifest of the day's data version."""

from collections.abc import Sequence

import polars as pl

from dayfold.errors import IntakeError
from dayfold.ledger import corrections, intake, manifest, splits
from dayfold.ledger.manifest import History, Row
from dayfold.project.layout import Project
from dayfold.project.params import Params


def rows_of(
    images: Sequence[tuple[str, str, str, str]], *, earlier: History, fractions: dict[str, float]
) -> list[Row]:
    """Return the `add` rows of (image, path, label, group) tuples, each with its split.

    A pure function of the set of tuples and the history. A group that was seen before keeps its
    split; a new one is counted in the class of its first image by id.
    """
    settled = dict(earlier.groups.iter_rows())
    newcomers: dict[str, str] = {}
    for image, _, label, group in sorted(images):
        if group not in settled:
            newcomers.setdefault(group or image, label)
    given = splits.assign(newcomers, before=_units_by_split(earlier), fractions=fractions)
    return [
        Row("add", image, path, label, group, settled.get(group) or given[group or image])
        for image, path, label, group in images
    ]


def _units_by_split(earlier: History) -> dict[str, dict[str, int]]:
    """How many groups (or images without one) each split has of each class."""
    alone = earlier.images.filter(pl.col("group") == "").select("label", "split")
    grouped = (
        earlier.images.filter(pl.col("group") != "")
        .group_by("group")
        .agg(pl.col("label", "split").sort_by("day", "image").first())
        .select("label", "split")
    )
    before: dict[str, dict[str, int]] = {}
    for units in (alone, grouped):
        for label, split, count in units.group_by("label", "split").len().iter_rows():
            counts = before.setdefault(label, {})
            counts[split] = counts.get(split, 0) + count
    return before


def run(project: Project, params: Params) -> None:
    """Read data/images/<day> and the day's corrections; write data/manifests/<day>.csv.

    Raises IntakeError with the whole list where a file cannot be taken.
    """
    day = params.day
    earlier = manifest.history(project, params.parent)
    folder = project.images(day)
    delivery = intake.inspect(folder, earlier)
    tuples, problems = [], delivery.problems
    for item in delivery.images:
        path = project.name(item.path)
        try:
            group = splits.group_of(path, params.data.group)
        except IntakeError as error:
            problems.append(error.what)
        else:
            tuples.append((item.image, path, item.label, group))
    if problems:
        raise IntakeError(
            f"{len(problems)} problems in {project.name(folder)}; no manifest was written:",
            problems=problems,
            mend="mend or remove these files, then dvc repro",
        )
    corrected = corrections.read(project, day, earlier)
    if not tuples and not corrected:
        raise IntakeError(
            f"There is no new image in {project.name(folder)}.", mend="dayfold add FOLDER"
        )
    added = rows_of(tuples, earlier=earlier, fractions=params.data.split.model_dump())
    manifest.write(
        project.manifest(day),
        parent_day=params.parent,
        parent_sha256=earlier.sha256,
        rows=[*added, *corrected],
    )
    _report(day, added, corrected, earlier, delivery)


def _report(
    day: str, added: list[Row], corrected: list[Row], earlier: History, delivery: intake.Delivery
) -> None:
    by_split = {name: sum(row.split == name for row in added) for name in manifest.SPLITS}
    parts = ", ".join(f"{count} {name}" for name, count in by_split.items())
    classes = {row.label for row in added}
    new = sorted(classes - set(earlier.images["label"].unique()))
    print(
        f"{day}: {len(added)} images added ({parts}) in {len(classes)} classes"
        + (f", new: {', '.join(new)}" if new else "")
        + f"; {len(earlier.images)} on {len(earlier.days)} earlier days"
    )
    if corrected:
        print(f"{len(corrected)} corrections of earlier days")
    for line in delivery.passed_over():
        print(line)
