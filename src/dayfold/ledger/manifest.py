"""Manifests: what each data version adds and changes, chained by hash back to the origin.

A manifest's first row pins its parent's bytes, so the hash of one manifest pins the whole history.
In its column `group` it says by which `data.group` the day's groups were read.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger.tables import schema
from dayfold.project.console import first_few
from dayfold.project.files import (
    csv_bytes,
    json_bytes,
    parse_csv,
    sha256,
    sha256_file,
    who_changed,
    write_bytes,
    write_csv,
)
from dayfold.project.layout import ORIGIN, UNOPENED, Project, is_day

SPLITS = ("train", "validation", "test")
HELD_OUT = SPLITS[1:]
_TABLES, _LISTS = ("images", "corrections", "groups"), ("withdrawn", "expressions", "days")
KEPT_FROM = 20_000  # images; a shorter history is read again faster than it is kept
KEPT = 2  # histories: the open day's parent, and the one before it while that changes
_DIGESTS = "facts.json"  # the sha256 of each file of a kept history
ACTIONS = ("parent", "add", "relabel", "withdraw")


class Row(NamedTuple):
    """One line of a manifest. `image` is the sha256 of the file's bytes, `path` starts at the top.

    `relabel` carries the new label; `withdraw` none.
    """

    action: str
    image: str
    path: str
    label: str
    group: str
    split: str


class Classes(NamedTuple):
    """The classes after a day: those with images, those that are new on it, those that had images.

    `renamed` are those whose images all got one other label that day, old → new: that name is no
    new class.
    """

    live: frozenset[str]
    new: tuple[str, ...]
    retired: frozenset[str]
    renamed: dict[str, str]


@dataclass(frozen=True)
class History:
    """All images as they stand after a data version.

    `images` has the columns image, path, label, group, split, day (the cohort: the day on which the
    image arrived), sorted by day and path; corrections are applied, withdrawn images are gone.
    `withdrawn` are the ids of those. `corrections` has what was corrected since an image arrived,
    oldest first: on (the day of the correction), action, image, path, before, label, group, split,
    day; `before` is the label that it had until then. `groups` (group, split) has every group ever
    seen, `expressions` every `data.group`; `days` are the data versions, oldest first; `sha256`
    pins all.
    """

    images: pl.DataFrame
    corrections: pl.DataFrame
    groups: pl.DataFrame
    withdrawn: frozenset[str]
    expressions: tuple[str, ...]
    days: tuple[str, ...]
    sha256: str

    def split(self, *names: str) -> pl.DataFrame:
        """Return the images of the named splits."""
        return self.images.filter(pl.col("split").is_in(names))

    def classes(self) -> dict[str, Classes]:
        """Return what became of the classes on each day, under the labels of then."""
        first = self.corrections.unique("image", keep="first").select("image", "day", "before")
        kept = self.images.join(first, on="image", how="anti").select("day", "label")
        arrived: dict[str, Counter[str]] = {day: Counter() for day in self.days}
        for table in (kept, first.select("day", label="before")):
            for day, label, count in table.group_by("day", "label").len().iter_rows():
                arrived[day][label] += count
        moves: dict[str, list[tuple[str, str]]] = {day: [] for day in self.days}
        for on, before, label in self.corrections.select("on", "before", "label").iter_rows():
            moves[on].append((before, label))
        counts, ever, found = Counter[str](), set[str](), {}
        for day in self.days:
            counts += arrived[day]
            into: dict[str, set[str]] = {}
            for before, label in moves[day]:
                counts[before] -= 1
                counts[label] += 1
                if label:
                    into.setdefault(before, set()).add(label)
            del counts[""]  # that of withdrawn images
            live = {label for label, count in counts.items() if count > 0}
            renamed = {
                old: min(names)
                for old, names in sorted(into.items())
                if len(names) == 1 and old not in live
            }
            new = live - ever - set(renamed.values())
            ever |= live
            found[day] = Classes(
                frozenset(live), tuple(sorted(new)), frozenset(ever - live), renamed
            )
        return found


def write(
    path: Path, *, parent_day: str, parent_sha256: str, rows: Iterable[Row], expression: str = ""
) -> None:
    """Write one day's manifest: the parent's pin first, then the rows by action, path and image."""
    write_bytes(path, _bytes(Row("parent", parent_sha256, parent_day, "", expression, ""), rows))


def _bytes(pin: Row, rows: Iterable[Row]) -> bytes:
    ordered = sorted(rows, key=lambda row: (ACTIONS.index(row.action), row.path, row.image))
    return csv_bytes(Row._fields, [pin, *ordered])


def without(chain: Sequence[tuple[str, bytes]], images: Collection[str]) -> dict[str, bytes]:
    """Return a chain of manifests, oldest first, as it would be if some images had never been."""
    made: dict[str, bytes] = {}
    for day, data in chain:
        table = parse_csv(data, schema(Row), day)
        _check_first(table, day)
        pin = Row._make(table.row(0))
        left = table[1:].filter(~pl.col("image").is_in(list(images)))
        if pin.path in made:
            pin = pin._replace(image=sha256(made[pin.path]))
        made[day] = _bytes(pin, map(Row._make, left.iter_rows()))
    return made


def write_origin(path: Path) -> None:
    """Write the first parent: a header and nothing else."""
    write_csv(path, Row._fields, [])


class _Link(NamedTuple):
    """A day's manifest as it was read."""

    day: str
    sha256: str
    expression: str
    events: pl.DataFrame


def history(project: Project, day: str) -> History:
    """Read the chain of manifests from `day` back, and fold it.

    Back to the origin, or to a day whose history is kept (`_keep`).
    """
    chain: list[_Link] = []  # youngest first
    expected = ""
    while True:
        before = _kept(project, expected) if expected else None
        if before:
            break
        name = project.name(project.manifest(day))
        try:
            data = project.manifest(day).read_bytes()
        except FileNotFoundError:
            raise LedgerError(
                f"The manifest {name} is missing.",
                mend=_restore(day, name) + ("" if expected else ", or, on the open day, dvc repro"),
            ) from None
        found = sha256(data)
        if expected and found != expected:
            raise LedgerError(
                f"{name} was changed after the next day had been made: its sha256 is {found[:12]}…,"
                f" {chain[-1].day} pins {expected[:12]}….",
                mend=_restore(day, name),
            )
        if day == ORIGIN:
            before = _empty(found)
            break
        table = parse_csv(data, schema(Row), name)
        _check_first(table, name)
        _check_paths(table, name)
        chain.append(_Link(day, found, table.item(0, "group"), table[1:]))
        expected, parent = table.item(0, "image"), table.item(0, "path")
        if parent != ORIGIN and parent >= day:
            raise LedgerError(f"{name} names the later day {parent} as its parent.")
        day = parent
    if len(chain) > 1:
        before = _fold(before, chain[:0:-1])
        _keep(project, before)
    return _fold(before, chain[:1])


def _empty(pin: str) -> History:
    images = pl.DataFrame(schema={**schema(Row), "day": pl.String}).drop("action")
    names = ("on", "action", "image", "path", "before", "label", "group", "split", "day")
    corrections = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return History(images, corrections, images.select("group", "split"), frozenset(), (), (), pin)


def _kept(project: Project, pin: str) -> History | None:
    """The history up to the manifest of this sha256, as `_keep` kept it; None if damaged."""
    folder, found = project.ledger_cache / pin, {}
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())
        for name in (*_TABLES, *_LISTS):
            if sha256_file(folder / f"{name}.arrow") != digests[name]:
                return None
            found[name] = pl.read_ipc(folder / f"{name}.arrow")
        withdrawn, expressions, days = (tuple(found[name][name]) for name in _LISTS)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
        return None
    images, corrections, groups = (found[name] for name in _TABLES)
    return History(images, corrections, groups, frozenset(withdrawn), expressions, days, sha256=pin)


def _keep(project: Project, known: History) -> None:
    """Keep a long history beside the project, and of older ones the last: none is read daily.

    Its folder is named by the sha256 of its last manifest, which pins all before it.
    """
    if len(known.images) < KEPT_FROM:
        return
    folder, digests = project.ledger_cache / known.sha256, {}
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: getattr(known, name) for name in _TABLES}
    for name in _LISTS:
        tables[name] = pl.DataFrame({name: [*getattr(known, name)]}, {name: pl.String})
    for name, table in tables.items():
        path = folder / f"{name}.arrow"
        table.write_ipc(path, compression="uncompressed")
        digests[name] = sha256_file(path)
    # Last, and atomically: without it the rest is not there.
    write_bytes(folder / _DIGESTS, json_bytes(digests))
    folders = sorted(
        project.ledger_cache.iterdir(), key=lambda one: (one.stat().st_mtime, one.name)
    )
    for old in folders[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def line(project: Project, day: str, parent: str) -> Iterator[str]:
    """Yield the days from `day`, whose manifest may not be there yet, back to the first one."""
    while day not in (ORIGIN, UNOPENED):
        yield day
        path = project.manifest(day)
        if path.exists():
            parent = parent_of(path.read_bytes(), project.name(path))[0]
        if parent >= day:  # the origin, and what no manifest may say
            return
        day = parent


def parent_of(data: bytes, name: str) -> tuple[str, str]:
    """Return the parent's day and the sha256 of its manifest, as the bytes of a manifest say."""
    table = parse_csv(_beginning(data), schema(Row), name)
    _check_first(table, name)
    return table.item(0, "path"), table.item(0, "image")


def _beginning(data: bytes) -> bytes:
    """The header and the first row: a quoted cell of it, `data.group` say, may have line breaks."""
    end = rows = 0
    while rows < 2 and end < len(data):
        end = data.find(b"\n", end) + 1 or len(data)
        rows += data.count(b'"', 0, end) % 2 == 0
    return data[:end]


def _check_first(table: pl.DataFrame, name: str) -> None:
    """The parent's day becomes a path and a tag: it is a day, or the origin, and nothing else."""
    if table.is_empty() or table.item(0, "action") != "parent":
        raise LedgerError(f"{name} does not begin with its parent.", mend="dvc repro")
    parent, expression = table.item(0, "path"), table.item(0, "group")
    undo = who_changed(name)
    if parent != ORIGIN and not is_day(parent):
        raise LedgerError(f"{name} names {parent!r} as its parent, which is no day.", mend=undo)
    try:
        re.compile(expression)
    except re.error as error:
        raise LedgerError(f"{name}: data.group {expression!r}: {error}", mend=undo) from None


def _check_paths(table: pl.DataFrame, name: str) -> None:
    outside = table.filter(pl.col("path").str.contains(r"^/|(^|/)\.\.(/|$)"))["path"]
    if len(outside):
        raise LedgerError(
            f"{name} names files outside of the project:",
            problems=first_few(outside.to_list(), name),
            mend=who_changed(name),
        )


def _restore(day: str, name: str) -> str:
    """The command that brings a sealed manifest back; the origin's is that of every seal."""
    return f"git checkout {'HEAD' if day == ORIGIN else f'day/{day}'} -- {name}"


def added(history: History, day: str) -> pl.DataFrame:
    """Return the images of a history that arrived on `day`."""
    return history.images.filter(pl.col("day") == day)


def _fold(known: History, chain: Sequence[_Link]) -> History:
    """Apply the manifests, oldest first: the last label counts, a withdrawal is for ever.

    Days come in order, so what is new is sorted by itself and stands after what is known.
    """
    if not chain:
        return known
    events = pl.concat([link.events.with_columns(day=pl.lit(link.day)) for link in chain])
    arrived = events.filter(pl.col("action") == "add").drop("action").sort("day", "path")
    withdrawn = known.withdrawn | frozenset(events.filter(action="withdraw")["image"])
    images = pl.concat([known.images, arrived])
    corrections = _corrected(known, events, images)
    if _any_twice(known.images["image"], arrived["image"]):
        twice = images.filter(pl.col("image").is_duplicated())["path"].to_list()
        raise LedgerError("The history holds the same image more than once.", problems=twice)
    if withdrawn:
        gone = pl.DataFrame({"image": sorted(withdrawn)})
        images = images.join(gone, on="image", how="anti", maintain_order="left")
    relabelled = events.filter(pl.col("action") == "relabel")
    if len(relabelled):
        corrected = relabelled.group_by("image", maintain_order=True).agg(
            pl.col("label").last().alias("corrected")
        )
        images = (
            images.join(corrected, on="image", how="left", maintain_order="left")
            .with_columns(label=pl.coalesce("corrected", "label"))
            .drop("corrected")
        )
    groups = arrived.filter(pl.col("group") != "").select("group", "split")
    if len(groups):
        groups = pl.concat([known.groups, groups]).unique(maintain_order=True)
    else:
        groups = known.groups
    expressions = dict.fromkeys((*known.expressions, *(link.expression for link in chain)))
    days = (*known.days, *(link.day for link in chain))
    return History(
        images, corrections, groups, withdrawn, tuple(expressions), days, chain[-1].sha256
    )


def _any_twice(known: pl.Series, arrived: pl.Series) -> bool:
    return arrived.n_unique() < len(arrived) or bool(known.is_in(arrived.implode()).any())


def _corrected(known: History, events: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """The known corrections and those among the events, each with the label before it."""
    made = events.filter(pl.col("action").is_in(ACTIONS[2:])).rename({"day": "on"})
    if made.is_empty():
        return known.corrections
    # What was withdrawn before is in no image's row: its last correction says where it stood.
    meant = pl.col("image").is_in(made["image"].implode())
    gone = known.corrections.filter(meant).unique("image", keep="last")
    stood = pl.concat(
        [table.filter(meant).select("image", "day", given="label") for table in (images, gone)]
    ).unique("image", keep="first")
    before = pl.coalesce(pl.col("label").shift(1).over("image"), "given")
    new = made.join(stood, on="image", how="left", maintain_order="left").select(
        "on", "action", "image", "path", before.alias("before"), "label", "group", "split", "day"
    )
    return pl.concat([known.corrections, new])
