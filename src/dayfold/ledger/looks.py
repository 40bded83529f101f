"""data/looks/<day>.csv: how every image looks, kept so that near duplicates are found for ever."""

from collections.abc import Iterable

from dayfold.ledger import lookalikes, tables
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.tables import Look, NearDuplicate
from dayfold.project.layout import Project


def read(project: Project, days: Iterable[str]) -> dict[str, str]:
    """Return how the images of these days look, by image; a day without its file is left out."""
    looks: dict[str, str] = {}
    for day in days:
        if project.looks(day).exists():
            looks |= dict(tables.read(project.looks(day), Look).iter_rows())
    return looks


def near_duplicates(
    added: Iterable[Row],
    look_of: dict[str, str],
    *,
    history: History,
    earlier: dict[str, str],
    within: int,
) -> list[NearDuplicate]:
    """Return today's images that look like one of another split or class, by path.

    `look_of` says how today's images look and `earlier` how the history's do.
    """
    mine = [(look_of[row.image], row.path, row.label, row.split) for row in added]
    past = [
        (earlier[row["image"]], row["path"], row["label"], row["split"])
        for row in history.images.iter_rows(named=True)
        if row["image"] in earlier
    ]
    others = [*past, *mine]
    code: dict[tuple[str, str], int] = {}
    kinds = [code.setdefault((label, split), len(code)) for _, _, label, split in others]
    found = lookalikes.nearest(
        [look for look, *_ in mine],
        kinds[len(past) :],
        [look for look, *_ in others],
        kinds,
        within=within,
    )
    return sorted(
        NearDuplicate(*mine[position][1:], *others[other][1:], bits)
        for position, other, bits in found
    )
