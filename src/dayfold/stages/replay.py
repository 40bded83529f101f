"""replay: all earlier training images → the few that today's training sees again."""

from collections.abc import Mapping

import polars as pl

from dayfold import draws
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Replayed, VersionWeight
from dayfold.project.layout import Project
from dayfold.project.params import Params


def select(
    old: pl.DataFrame, *, weights: Mapping[str, float], policy: str, size: int, seed: int, day: str
) -> list[Replayed]:
    """Choose `size` of the images `old` (image, path, label, day), in order of selection.

    `uniform`: every image with the same chance. `class_balanced`: every class with as many images
    as any other as long as it has them, and within a class every image with the same chance. In
    turn one of each class, so that the head of the list is balanced too. The draw is fresh each
    day, and a function of seed, day and image only.
    """
    if policy == "uniform":
        seats = {"": min(size, len(old))}
        drawers = {"": old}
    else:
        by_class = old.partition_by("label", as_dict=True)
        drawers = {str(key[0]): rows for key, rows in by_class.items()}
        available = {label: len(rows) for label, rows in drawers.items()}
        seats = draws.even_seats(available, size, "replay seats", seed, day)
    chosen: list[tuple[int, str, Replayed]] = []
    for label, rows in drawers.items():
        ids = rows["image"].to_list()
        equal = [1.0] * len(ids)
        order, keys = draws.priority_sample(ids, equal, seats[label], "replay", seed, day)
        columns = rows[order].select("image", "path", "label", "day").iter_rows(named=True)
        for turn, (row, key) in enumerate(zip(columns, keys, strict=True)):
            weight = weights[row["day"]]
            chosen.append((turn, label, Replayed(**row, weight=weight, key=float(key))))
    return [row for _, _, row in sorted(chosen)]


def run(project: Project, params: Params) -> None:
    """Choose from all training images of earlier days; write data/replay.csv."""
    weights = dict(tables.read(project.weights, VersionWeight).select("day", "weight").iter_rows())
    history = manifest.history(project, params.day)
    old = history.split("train").filter(pl.col("day") != params.day)
    rows = select(
        old,
        weights=weights,
        policy=params.replay.policy,
        size=params.replay.size,
        seed=params.seed,
        day=params.day,
    )
    tables.write(project.replay, Replayed, rows)
    classes = sorted({row.label for row in rows})
    days = {row.day for row in rows}
    print(
        f"{len(rows)} of {len(old)} earlier images ({params.replay.policy}): "
        f"{len(classes)} classes, {len(days)} days"
    )
