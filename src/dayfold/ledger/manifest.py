"""What each data version changes, chained by hash.

A manifest's first row pins its parent's bytes, so the hash of one manifest pins the whole history.
The column `group` of that row has the `data.group` that found the day's groups.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger.tables import schema
from dayfold.project.console import first_few
from dayfold.project.files import csv_bytes, parse_csv, sha256, stamp, who_changed, write_bytes
from dayfold.project.layout import ORIGIN, UNOPENED, Project, is_day

SPLITS = ("train", "validation", "test")
HELD_OUT = SPLITS[1:]
ACTIONS = ("parent", "add", "relabel", "withdraw")


class Row(NamedTuple):
    """A line: `image` is the sha256 of the bytes; `relabel` has the new label, `withdraw` none."""

    action: str
    image: str
    path: str
    label: str
    group: str
    split: str


_HEADER = csv_bytes(Row._fields, [])
KEEP_FROM = 0.05  # share of new rows from which on the history is cached again


class Classes(NamedTuple):
    """The classes after a day: `live` ones have images, `new` ones for the first time.

    `retired` ones have no images any more. `renamed` maps an old name to a new one if all images of
    the class got that label on the day; such a name is not a new class.
    """

    live: frozenset[str]
    new: tuple[str, ...]
    retired: frozenset[str]
    renamed: dict[str, str]


@dataclass(frozen=True)
class History:
    """All images after a data version.

    `images` has the columns image, path, label, group, split, day (the cohort: the day on which the
    image arrived), sorted by day and path, with corrections applied and without the `withdrawn`
    images. `corrections` has all corrections, oldest first: on (the day of the correction), action,
    image, path, before (the label until then), label, group, split, day. `groups` (group, split)
    has every group ever seen, `expressions` every `data.group` ever used. `days` are the data
    versions, oldest first; `sha256` is that of the last manifest.
    """

    images: pl.DataFrame
    corrections: pl.DataFrame
    groups: pl.DataFrame
    withdrawn: frozenset[str] = frozenset()
    expressions: tuple[str, ...] = ()
    days: tuple[str, ...] = ()
    sha256: str = ""

    def split(self, *names: str) -> pl.DataFrame:
        return self.images.filter(pl.col("split").is_in(names))

    def classes(self) -> dict[str, Classes]:
        """Return the classes of each day, under the labels of that day."""
        first = self.corrections.unique("image", keep="first").select("image", "day", "before")
        uncorrected = self.images.filter(~pl.col("image").is_in(first["image"].implode()))
        changes: dict[str, Counter[str]] = {day: Counter() for day in self.days}
        for table in (uncorrected, first.select("day", label="before")):
            for day, label, count in table.group_by("day", "label").len().iter_rows():
                changes[day][label] += count
        into: dict[str, dict[str, set[str]]] = {day: {} for day in self.days}
        for on, before, label in self.corrections.select("on", "before", "label").iter_rows():
            changes[on][before] -= 1
            if label:  # a withdrawn image has no label
                changes[on][label] += 1
                into[on].setdefault(before, set()).add(label)
        counts, ever, found = Counter[str](), set[str](), {}
        for day in self.days:
            counts.update(changes[day])
            live = {label for label, count in counts.items() if count > 0}
            renamed = renames(dict(sorted(into[day].items())), live)
            new = live - ever - set(renamed.values())
            ever |= live
            retired = frozenset(ever - live)
            found[day] = Classes(frozenset(live), tuple(sorted(new)), retired, renamed)
        return found


def renames(into: Mapping[str, set[str]], live: Collection[str]) -> dict[str, str]:
    """Return old → new name of each class that is renamed or merged.

    `into` has the labels that its images were given on a day, `live` the classes with images after.
    """
    return {old: min(names) for old, names in into.items() if len(names) == 1 and old not in live}


def _empty(*names: str) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(names, pl.String))


_START = History(
    images=_empty(*Row._fields[1:], "day"),
    corrections=_empty("on", *Row._fields[:3], "before", *Row._fields[3:], "day"),
    groups=_empty("group", "split"),
)
_TABLES = ("images", "corrections", "groups")
_LISTS = ("withdrawn", "expressions", "days", "stamps")


def write(
    path: Path, *, parent_day: str, parent_sha256: str, rows: Iterable[Row], expression: str = ""
) -> None:
    """Write one day's manifest: the parent's pin first, then the rows by action, path and image."""
    write_bytes(path, _bytes(Row("parent", parent_sha256, parent_day, "", expression, ""), rows))


def _bytes(pin: Row, rows: Iterable[Row]) -> bytes:
    ordered = sorted(rows, key=lambda row: (ACTIONS.index(row.action), row.path, row.image))
    return csv_bytes(Row._fields, [pin, *ordered])


def without(chain: Sequence[tuple[str, bytes]], images: Collection[str]) -> dict[str, bytes]:
    """Return a chain of manifests, oldest first, rewritten without some images."""
    rewritten: dict[str, bytes] = {}
    for day, data in chain:
        table, pin = parse_csv(data, schema(Row), day), _first(data, day)
        rest = table[1:].filter(~pl.col("image").is_in(list(images)))
        if pin.path in rewritten:
            pin = pin._replace(image=sha256(rewritten[pin.path]))
        rewritten[day] = _bytes(pin, map(Row._make, rest.iter_rows()))
    return rewritten


def history(project: Project, day: str, *, cache: bool = False) -> History:
    """Read the manifests from `day` back to the origin; return the images after `day`.

    With `cache` the result is cached, if it is much longer than the cached one. Later commands then
    read only newer manifests: with a million images that saves nine tenths of the time.
    """
    known, folder = _cached(project), project.name(project.manifests)
    chain: list[tuple[str, bytes]] = []  # youngest first
    data = _read(project, day, "", "")
    pin = last = sha256(data)
    while day != ORIGIN and pin != known.sha256:
        chain.append((day, data))
        child, (day, pin) = day, parent_of(data, f"{folder}/{day}.csv")
        if day != ORIGIN and day >= child:
            raise LedgerError(f"{folder}/{child}.csv names the later day {day} as its parent.")
        data = _read(project, day, child, pin)
    if pin != known.sha256:
        known = _START
    rows = _rows(project, chain[::-1])
    found = _folded(known, rows, last)
    if cache and len(rows) > len(known.images) * KEEP_FROM:
        _cache(project, found)
    return found


def _rows(project: Project, manifests: Sequence[tuple[str, bytes]]) -> pl.DataFrame:
    # Parsed as one table: with a thousand manifests that takes a tenth of the time.
    text = b"".join([_HEADER, *(data.partition(b"\n")[2] for _, data in manifests)])
    try:
        table = parse_csv(text, schema(Row), "the manifests")
    except LedgerError:
        for day, data in manifests:
            parse_csv(data, schema(Row), project.name(project.manifest(day)))
        raise
    is_pin = table["action"] == "parent"
    if is_pin.sum() != len(manifests):
        raise LedgerError("A manifest has several parents.", hint=who_changed("data/manifests"))
    days = pl.Series("day", [day for day, _ in manifests], dtype=pl.String)
    table = table.with_columns(days.gather(is_pin.cum_sum() - 1))
    outside = table.filter(pl.col("path").str.contains(r"^/|(^|/)\.\.(/|$)"))
    if len(outside):
        name = project.name(project.manifest(outside["day"][0]))
        raise LedgerError(
            f"{name} names files outside of the project:",
            problems=first_few(outside["path"].to_list(), name),
            hint=who_changed(name),
        )
    return table


def _read(project: Project, day: str, child: str, pin: str) -> bytes:
    """Return a day's manifest; its sha256 must be `pin`, which the manifest of `child` has."""
    path = project.manifest(day)
    data = path.read_bytes() if path.exists() else None
    if data is not None and (not child or sha256(data) == pin):
        return data
    name = project.name(path)
    restore = f"git checkout {'HEAD' if day == ORIGIN else f'day/{day}'} -- {name}"
    if data is None:
        more = "" if child else ", or, on the open day, dvc repro"
        raise LedgerError(f"The manifest {name} is missing.", hint=restore + more)
    raise LedgerError(
        f"{name} was changed after the next day was made: its sha256 is "
        f"{sha256(data)[:12]}…, {child} pins {pin[:12]}….",
        hint=restore,
    )


def ancestors(project: Project, day: str, parent: str) -> Iterator[str]:
    """Yield the days from `day`, whose manifest may be missing, back to the first one."""
    while day not in (ORIGIN, UNOPENED):
        yield day
        path = project.manifest(day)
        if path.exists():
            parent = parent_of(path.read_bytes(), project.name(path))[0]
        if parent >= day:  # the origin, or a damaged manifest
            return
        day = parent


def parent_of(data: bytes, name: str) -> tuple[str, str]:
    """Return the parent's day and its manifest's sha256, as a manifest's bytes pin them."""
    pin = _first(data, name)
    return pin.path, pin.image


def _first(data: bytes, name: str) -> Row:
    # csv is thirty times as fast as polars here.
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""))
    try:
        header, found = next(lines, []), tuple(next(lines, []))
    except (UnicodeDecodeError, csv.Error):
        header, found = [], ()
    if tuple(header) != Row._fields or len(found) != len(Row._fields):
        # polars accepts more, such as a carriage return in data.group, and says what is wrong.
        found = next(parse_csv(data, schema(Row), name, rows=1).iter_rows(), ("",))
    if found[0] != "parent":
        raise LedgerError(f"{name} does not begin with its parent.", hint="dvc repro")
    pin, undo = Row._make(found), who_changed(name)
    if pin.path != ORIGIN and not is_day(pin.path):
        what = f"{name} names {pin.path!r} as its parent, which is not a day."
        raise LedgerError(what, hint=undo)
    try:
        re.compile(pin.group)
    except re.error as error:
        raise LedgerError(f"{name}: data.group {pin.group!r}: {error}", hint=undo) from None
    return pin


def added(history: History, day: str) -> pl.DataFrame:
    return history.images.filter(pl.col("day") == day)


def _folded(known: History, rows: pl.DataFrame, pin: str) -> History:
    arrived = rows.filter(action="add").drop("action")
    had = (known.images, known.corrections.filter(action="withdraw"))
    again = [part.filter(pl.col("image").is_in(arrived["image"].implode())) for part in had]
    named = pl.concat([part.select("image", "path") for part in (*again, arrived)])
    if named["image"].n_unique() < len(named):
        twice = named.filter(pl.col("image").is_duplicated())["path"].to_list()
        raise LedgerError("The history holds the same image more than once.", problems=twice)
    images = pl.concat([known.images, arrived])
    corrections = _corrections(rows, images)
    withdrawn = rows.filter(action="withdraw").select("image")
    if len(withdrawn):
        images = images.join(withdrawn, on="image", how="anti", maintain_order="left")
    if len(relabelled := rows.filter(action="relabel").unique("image", keep="last")):
        corrected = relabelled.select("image", corrected="label")
        images = images.join(corrected, on="image", how="left", maintain_order="left")
        images = images.with_columns(label=pl.coalesce("corrected", "label")).drop("corrected")
    pins = rows.filter(action="parent")
    groups = arrived.filter(pl.col("group") != "").select("group", "split")
    return History(
        images=images,
        corrections=pl.concat([known.corrections, corrections]),
        groups=pl.concat([known.groups, groups]).unique(maintain_order=True),
        withdrawn=known.withdrawn.union(withdrawn["image"]),
        expressions=tuple(dict.fromkeys([*known.expressions, *pins["group"]])),
        days=(*known.days, *pins["day"]),
        sha256=pin,
    )


def _corrections(rows: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    made = rows.filter(pl.col("action").is_in(ACTIONS[2:])).rename({"day": "on"})
    corrected = images.filter(pl.col("image").is_in(made["image"].unique().implode()))
    first = corrected.select("image", "day", given="label")
    before = pl.coalesce(pl.col("label").shift(1).over("image"), "given").alias("before")
    return made.join(first, on="image", how="left", maintain_order="left").select(
        "on", "action", "image", "path", before, "label", "group", "split", "day"
    )


def _cached(project: Project) -> History:
    # polars raises TypeError for paths with letters that the locale lacks.
    with suppress(OSError, ValueError, TypeError, pl.exceptions.PolarsError):
        # Given a path, polars maps the file into memory instead of copying it.
        kept = pl.read_ipc(project.cached_history)
        images, corrections, groups = (kept[name][0].struct.unnest() for name in _TABLES)
        withdrawn, expressions, days, stamps = (kept[name][0].to_list() for name in _LISTS)
        if stamps == _stamps(project, days):
            lists = (frozenset(withdrawn), tuple(expressions), tuple(days))
            return History(images, corrections, groups, *lists, sha256=kept["sha256"][0])
    return _START


def _cache(project: Project, history: History) -> None:
    row: dict[str, Any] = {name: [getattr(history, name).to_struct()] for name in _TABLES}
    lists = (history.withdrawn, history.expressions, history.days, _stamps(project, history.days))
    row |= {
        name: pl.Series([list(values)], dtype=pl.List(pl.String))
        for name, values in zip(_LISTS, lists, strict=True)
    }
    file = io.BytesIO()
    pl.DataFrame(row | {"sha256": [history.sha256]}).write_ipc(file)
    with suppress(OSError):  # the cache is optional on a full disk
        write_bytes(project.cached_history, file.getvalue())


def _stamps(project: Project, days: Iterable[str]) -> list[str]:
    return [stamp(project.manifest(day)) for day in days]
