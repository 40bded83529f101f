"""data/looks/<day>.csv, and near duplicates.

A look is a difference hash of 128 bits as 32 hexadecimal digits (intake/workers.py), or empty for a
plain image.
"""

from collections.abc import Iterable, Iterator, Sequence

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
NEAR_BITS = 4  # bits, at most, in which near duplicates differ
_AT_ONCE = 2**22  # comparisons at a time: 64 MB


def read(project: Project, days: Iterable[str]) -> pl.DataFrame:
    """Return the looks of these days (image, look); days without a file are skipped."""
    # Parsed as one table: for a thousand days that takes a tenth of the time.
    header = ",".join(Look._fields).encode() + b"\n"
    parts = [header]
    for path in filter(lambda path: path.exists(), map(project.looks, days)):
        data = path.read_bytes()
        if not (data.startswith(header) and data.endswith(b"\n")):
            name = project.name(path)
            raise LedgerError(f"{name} was changed.", hint=who_changed(name))
        parts.append(data.removeprefix(header))
    return parse_csv(b"".join(parts), tables.schema(Look), "data/looks")


def nearest(
    rows: Sequence[tuple[str, ...]], kind: Sequence[str], *, history: History, earlier: pl.DataFrame
) -> list[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """Return (row, its near duplicate, bits that differ) for each row that has one.

    A near duplicate is the nearest row, in the history or among `rows`, that differs in a column of
    `kind` (label, split). Rows are (look, path, each column of `kind`); `earlier` (image, look) has
    the looks of the history.
    """
    columns = ["look", "path", *kind]
    today = pl.DataFrame(rows, dict.fromkeys(columns, pl.String), orient="row")
    near = earlier.filter(_are_near(earlier["look"].to_list(), today["look"].to_list()))
    looked = earlier.filter(pl.col("image").is_in(near["image"].implode()))
    looked = looked.filter(pl.col("look") != "").unique("image", keep="last")
    past = history.images.join(looked, on="image", maintain_order="left").select(columns)
    others = pl.concat([past, today])
    named = others.select(pl.concat_str(kind, separator="\n").cast(pl.Categorical).to_physical())
    kinds, hashes = named.to_series().to_list(), others["look"].to_list()
    found = nearest_of_another_kind(hashes[len(past) :], kinds[len(past) :], hashes, kinds)
    return [(today.row(position), others.row(other), bits) for position, other, bits in found]


def near_duplicates(
    added: Iterable[Row], look_of: dict[str, str], *, history: History, earlier: pl.DataFrame
) -> list[NearDuplicate]:
    """Return today's images that look like one of another split or class, sorted by path."""
    rows = [(look_of[row.image], row.path, row.label, row.split) for row in added]
    found = nearest(rows, ["label", "split"], history=history, earlier=earlier)
    return sorted(NearDuplicate._make((*one[1:], *other[1:], bits)) for one, other, bits in found)


def nearest_of_another_kind(
    looks: Sequence[str], kinds: Sequence[int], others: Sequence[str], other_kinds: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Return (position, other's position, bits that differ) for each look with a near one.

    The nearest look of another kind is taken, the first of several. Empty looks are not compared.
    """
    positions, a = _words(looks)
    other_positions, b = _words(others)
    kind, other_kind = np.asarray(kinds, dtype=np.int64), np.asarray(other_kinds, dtype=np.int64)
    found: list[tuple[int, int, int]] = []
    for block, bits in _differences(a, b):
        bits[kind[positions[block], None] == other_kind[None, other_positions]] = BITS + 1
        best, least = bits.argmin(axis=1), bits.min(axis=1)
        near = least <= NEAR_BITS
        places = positions[block][near], other_positions[best[near]], least[near]
        found += zip(*(place.tolist() for place in places), strict=True)
    return found


def _are_near(looks: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether a look has a near one among the others; bool [len(looks)]."""
    positions, a = _words(looks)
    found = np.zeros(len(looks), dtype=bool)
    for _, bits in _differences(_words(others)[1], a):
        found[positions[(bits <= NEAR_BITS).any(axis=0)]] = True
    return found


def _differences(
    a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Yield a slice of `a`, and how many bits differ from each row of `b`: uint8 [rows, len(b)]."""
    step = max(1, _AT_ONCE // max(1, len(b)))
    for start in range(0, len(a) if len(b) else 0, step):
        block = slice(start, start + step)
        bits = np.bitwise_count(a[block, None, 0] ^ b[None, :, 0])
        bits += np.bitwise_count(a[block, None, 1] ^ b[None, :, 1])
        yield block, bits


def without_near_duplicates(looks: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the positions of looks that are empty, or not near a `known` or an earlier one."""
    positions, new = _words(looks)
    _, others = _words(known)
    seen, count = np.concatenate([others, new]), len(others)
    near = set()
    for position, word in zip(positions.tolist(), new, strict=True):
        bits = np.bitwise_count(seen[:count] ^ word).sum(axis=1)
        if bits.min(initial=BITS) <= NEAR_BITS:
            near.add(position)
        else:
            seen[count] = word
            count += 1
    return [position for position in range(len(looks)) if position not in near]


def _words(looks: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the positions of looks that are not empty, and these looks as uint64 [n, 2]."""
    lengths = np.fromiter(map(len, looks), dtype=np.int64, count=len(looks))
    words = np.frombuffer(bytes.fromhex("".join(looks)), dtype=">u8").reshape(-1, 2)
    return np.flatnonzero(lengths), words.astype(np.uint64)
