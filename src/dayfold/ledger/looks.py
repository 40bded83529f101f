"""data/looks/<day>.csv, and near duplicates.

A look is a difference hash of 128 bits as 32 hexadecimal digits (intake/workers.py), or empty.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dayfold.errors import LedgerError
from dayfold.ledger import tables
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.tables import Look, NearDuplicate
from dayfold.project.files import parse_csv, who_changed
from dayfold.project.layout import Project

BITS = 128
NEAR_BITS = 4  # at most, that differ between images called near duplicates
_AT_ONCE = 2**22  # comparisons of a block: 64 MB


def read(project: Project, days: Iterable[str]) -> pl.DataFrame:
    """Return how the images of these days look (image, look); a day without its file has none."""
    # All files are parsed as one: of a thousand days that is a tenth of the time.
    header = ",".join(Look._fields).encode() + b"\n"
    whole = [header]
    for path in filter(lambda path: path.exists(), map(project.looks, days)):
        data = path.read_bytes()
        if not (data.startswith(header) and data.endswith(b"\n")):
            name = project.name(path)
            raise LedgerError(f"{name} is not as it was written.", hint=who_changed(name))
        whole.append(data.removeprefix(header))
    return parse_csv(b"".join(whole), tables.schema(Look), "data/looks")


def nearest(
    rows: Sequence[tuple[str, ...]], kind: Sequence[str], *, history: History, earlier: pl.DataFrame
) -> list[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """Return (a row, the row that it looks like, bits that differ), in the order of the rows.

    The nearest in the history or among them that differs in a column of `kind`: label, split. Rows
    are (look, path, each column of `kind`); `earlier` (image, look) is of the history.
    """
    columns = ["look", "path", *kind]
    mine = pl.DataFrame(rows, dict.fromkeys(columns, pl.String), orient="row")
    looked = earlier.filter(pl.col("look") != "").unique("image", keep="last")
    past = history.images.join(looked, on="image", maintain_order="left").select(columns)
    others = pl.concat([past, mine])
    named = others.select(pl.concat_str(kind, separator="\n").cast(pl.Categorical).to_physical())
    kinds, seen = named.to_series().to_list(), others["look"].to_list()
    found = nearest_of_another_kind(seen[len(past) :], kinds[len(past) :], seen, kinds)
    return [(mine.row(position), others.row(other), bits) for position, other, bits in found]


def near_duplicates(
    added: Iterable[Row], look_of: dict[str, str], *, history: History, earlier: pl.DataFrame
) -> list[NearDuplicate]:
    """Return today's images that look like one of another split or class, by path."""
    rows = [(look_of[row.image], row.path, row.label, row.split) for row in added]
    found = nearest(rows, ["label", "split"], history=history, earlier=earlier)
    return sorted(NearDuplicate._make((*one[1:], *other[1:], bits)) for one, other, bits in found)


def nearest_of_another_kind(
    looks: Sequence[str], kinds: Sequence[int], others: Sequence[str], other_kinds: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Return (position, other's position, bits that differ) of each look that has a near one.

    That is the nearest of the others of another kind, the first of several. Empty looks are near
    to none.
    """
    mine, a = _words(looks)
    its, b = _words(others)
    kind, other_kind = np.asarray(kinds, dtype=np.int64), np.asarray(other_kinds, dtype=np.int64)
    found: list[tuple[int, int, int]] = []
    step = max(1, _AT_ONCE // max(1, len(b)))
    for start in range(0, len(a) if len(b) else 0, step):
        block = slice(start, start + step)
        far = np.bitwise_count(a[block, None, 0] ^ b[None, :, 0])
        far += np.bitwise_count(a[block, None, 1] ^ b[None, :, 1])
        far[kind[mine[block], None] == other_kind[None, its]] = BITS + 1
        best = far.argmin(axis=1)
        for row in np.flatnonzero(far.min(axis=1) <= NEAR_BITS):
            column = best[row]
            found.append((int(mine[block][row]), int(its[column]), int(far[row, column])))
    return found


def apart(looks: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the positions of looks that are near neither to a known one nor to an earlier of them.

    Empty looks are near to none.
    """
    places, mine = _words(looks)
    _, others = _words(known)
    seen, count = np.concatenate([others, mine]), len(others)
    near = set()
    for place, word in zip(places.tolist(), mine, strict=True):
        bits = np.bitwise_count(seen[:count] ^ word).sum(axis=1)
        if bits.min(initial=BITS) <= NEAR_BITS:
            near.add(place)
        else:
            seen[count] = word
            count += 1
    return [place for place in range(len(looks)) if place not in near]


def _words(looks: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The positions of the looks that are not empty, and these as two words each: uint64 [n, 2]."""
    lengths = np.fromiter(map(len, looks), dtype=np.int64, count=len(looks))
    words = np.frombuffer(bytes.fromhex("".join(looks)), dtype=">u8").reshape(-1, 2)
    return np.flatnonzero(lengths), words.astype(np.uint64)
