"""A delivery: its files, checked and sorted."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
from rich.table import Table
from rich.text import Text

from dayfold.ledger import looks, tables
from dayfold.ledger.intake import workers
from dayfold.ledger.manifest import History
from dayfold.ledger.names import clashing
from dayfold.ledger.tables import RemarkRow
from dayfold.project.console import MOST_LINES, Ticker, first_few, plural
from dayfold.project.files import escaped
from dayfold.project.layout import Project

MANY = 50_000  # files of a day from which on `add` asks
NO_LABEL = "no_label"
FEW = 5  # new classes with one file each that are suspicious
_COMPUTED = re.compile(r"=.+|#[A-Z]+[!?]")  # =A1, #REF!, #NAME?
_LIKE_A_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")


class FoundFile(NamedTuple):
    """A file of a delivery: its path, its name in messages, its class, and its group in a CSV.

    `real` is the path of its bytes if it is DVC's link to the cache. After the check `image` is its
    sha256, `look` its difference hash (looks.py), `ids` the group by a DICOM file's ids.
    """

    path: Path
    place: str
    label: str
    group: str = ""
    real: Path | None = None
    image: str = ""
    look: str = ""
    ids: str = ""


class Remark(NamedTuple):
    """A remark on a file, and the file's sha256 if it could be read.

    For a known image with another `label`, `known` is its path in the project.
    """

    place: str
    text: str
    image: str = ""
    known: str = ""
    label: str = ""

    def __str__(self) -> str:
        return escaped(f"{self.place} {self.text}")


@dataclass
class Delivery:
    """The outcome for each file: images to add, known ones, refused ones, warnings, ignored ones.

    `changed` are known images with another label: with `relabels` they become corrections. `groups`
    maps images to new groups that a CSV names. `listed` maps a kind of remarks to the file that has
    all of them. `opened` is the day's parent if the day was opened for this delivery. `notes` are
    lines to print on the day, patients and columns. `new` are the classes that no earlier day has,
    unless it is the first day. `is_regrouped` says whether `data.group` was changed,
    `asks_patients` whether names seem to hold patients and nothing says how. With `is_dry` nothing
    was written. `guess` are a label file's columns that a person must confirm, and the option that
    would name them.
    """

    images: list[FoundFile] = field(default_factory=list)
    known: list[Remark] = field(default_factory=list)
    refused: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)
    warned: list[Remark] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    is_regrouped: bool = False
    asks_patients: bool = False
    is_dry: bool = False
    relabels: bool = False
    ignored: int = 0
    opened: str = ""
    guess: tuple[str, str] | None = None

    def refuse(self, place: str, reason: str, image: str = "") -> None:
        self.refused.append(Remark(place, reason, image))

    def warn(self, place: str, what: str) -> None:
        self.warned.append(Remark(place, what))

    def table(self, day: str) -> Table:
        """Return a table of added, known, refused, warned and ignored files, with examples."""
        result = Table(box=None, pad_edge=False)
        result.add_column(day)
        result.add_column("files", justify="right")
        result.add_column("", overflow="fold")
        would = "would be " * self.is_dry
        classes = sorted(tally(self.images).items())
        counts = ", ".join(f"{escaped(label)} {count}" for label, count in classes)
        if self.new:
            counts += f"; new: {', '.join(map(escaped, self.new))}"
        result.add_row(f"{would}added", str(len(self.images)), Text(counts))
        if self.groups:
            of = f"images of {plural(len({*self.groups.values()}), 'patient')}, as the file says"
            result.add_row(f"{would}grouped", str(len(self.groups)), of)
        other = f"{would}relabelled" if self.relabels else "another label"
        for name, kind in (
            ("already known", "known"),
            *[(other, "changed")] * bool(self.changed),
            (f"{would}refused", "refused"),
            ("warned", "warned"),
        ):
            result.add_row(name, str(len(getattr(self, kind))), Text("\n".join(self._first(kind))))
        if self.ignored:
            result.add_row("ignored", str(self.ignored), "hidden and system files")
        return result

    def unusual(self) -> Iterator[str]:
        """Yield lines on the first refused and warned files, and on the file that lists all."""
        for word, kind in (("refused",) * 2, ("another label", "changed"), ("warned",) * 2):
            yield from (f"  {word}: {line}" for line in self._first(kind))

    def _first(self, kind: str) -> list[str]:
        lines = [str(remark) for remark in getattr(self, kind)]
        if kind == "known" and len(lines) > 1:  # they need no action
            where = f" in {self.listed[kind]}" * (len(lines) > MOST_LINES)
            return [lines[0], f"and {len(lines) - 1} more{where}"]
        return first_few(lines, self.listed[kind])

    def next_step(self) -> str:
        if self.is_dry:
            return "nothing was changed; to do it, leave out --dry-run"
        corrected = self.changed if self.relabels else []
        new = (self.images, self.groups, self.opened, corrected, self.is_regrouped)
        step = "next: dvc repro" if any(new) else "nothing new"
        if self.asks_patients and any(new):
            step = "next: name the patients as said above; or, if there are none, dvc repro"
        if self.changed and not self.relabels:
            labels = ", ".join(first_few(sorted({escaped(one.label) for one in self.changed})))
            step += f"; to correct to the other labels ({labels}): the same command with --relabel"
        return step


def safe_cell(place: str) -> str:
    """Return a path to the same file that no spreadsheet takes for a formula."""
    return f"./{place}" if place.startswith(("=", "+", "-", "@")) else place


def write_down(project: Project, kinds: Mapping[str, Sequence[Remark]]) -> str:
    """Write all remarks to a file if a kind has too many to print; return the file's name."""
    if any(len(remarks) > MOST_LINES for remarks in kinds.values()):
        rows = [
            (kind, safe_cell(one.place), one.image, escaped(one.text))
            for kind, remarks in kinds.items()
            for one in remarks
        ]
        tables.write(project.remarks, RemarkRow, rows)
    return project.name(project.remarks)


def tally(found: Iterable[FoundFile]) -> dict[str, int]:
    return dict(Counter(one.label for one in found))


def inspect(
    found: Sequence[FoundFile],
    delivery: Delivery,
    history: History,
    *,
    today: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    stage: Path | None = None,
    squares: tuple[str, int] = ("", 0),
) -> None:
    """Check every found file and sort it into the delivery: an image, known, changed or refused.

    Each file is read once, hashed and decoded, in parallel. Its bytes are copied into `stage`,
    named by their sha256, and its square of the given size is cached in the folder of `squares`.
    Bytes that come twice, or that the history or `today` (image → class, path) has, are known if
    they have the same class, or one from before a correction. If all copies have the same other
    class, they are changed; otherwise they are refused.
    """
    earlier = set(history.images["label"].unique()) | {label for label, _ in today.values()}
    twice = clashing(earlier | {one.label for one in found})
    takable = []
    for file in found:
        if file.label in twice and file.label not in earlier:
            delivery.refuse(file.place, f"has a class with two names: {twice[file.label]}")
        else:
            takable.append(file)
    checked: list[FoundFile] = []
    results = examine(takable, stage=stage, squares=squares)
    for file, facts in zip(takable, results, strict=True):
        if "failed" in facts:
            raise OSError(facts["failed"])
        if "refused" in facts:
            delivery.refuse(file.place, facts["refused"], facts["image"])
            continue
        for warning in facts["warnings"]:
            delivery.warn(file.place, warning)
        checked.append(file._replace(image=facts["image"], look=facts["look"], ids=facts["ids"]))
    _sort_out_copies(checked, history, today, delivery)


def examine(
    found: Sequence[FoundFile], *, stage: Path | None = None, squares: tuple[str, int] = ("", 0)
) -> list[dict[str, Any]]:
    common = {"stage": str(stage or ""), "squares": squares[0], "size": squares[1]}
    requests = [
        {"path": str(one.path.absolute()), "real": str(one.real or ""), **common} for one in found
    ]
    with Ticker("checking", len(requests), "files") as ticker:
        return workers.answers(requests, progress=ticker.so_far)


def _sort_out_copies(
    checked: Sequence[FoundFile],
    history: History,
    today: Mapping[str, tuple[str, str]],
    delivery: Delivery,
) -> None:
    copies: dict[str, list[FoundFile]] = {}
    for item in checked:
        copies.setdefault(item.image, []).append(item)
    earlier = history.images.filter(pl.col("image").is_in([*copies]))
    known = {row["image"]: (row["label"], row["path"]) for row in earlier.iter_rows(named=True)}
    known |= today
    corrected = {*history.corrections.select("image", "before").iter_rows()}
    group_of = dict(earlier.select("image", "group").iter_rows())
    for image, items in copies.items():
        first, groups = items[0], sorted({repr(item.group) for item in items})
        if image in history.withdrawn:
            for item in items:
                delivery.refuse(item.place, "was withdrawn", image)
        elif image in known:
            label, place = known[image]
            for item in items:
                if item.label == label or (image, item.label) in corrected:
                    since = f", corrected to {label!r} since" * (item.label != label)
                    delivery.known.append(_copy_of(item, place, since))
                    _note_group(item, group_of.get(image), delivery)
                else:
                    what = f"is {label!r} in the project ({place}), but {item.label!r} here"
                    remark = Remark(item.place, what, image, place, item.label)
                    is_same = all(one.label == item.label for one in items)
                    (delivery.changed if is_same else delivery.refused).append(remark)
        elif {item.label for item in items} != {first.label}:
            # Never guess which class is right.
            for item in items:
                other = next(one for one in items if one.label != item.label)
                both = f"is in both {item.label!r} and {other.label!r} ({other.place})"
                delivery.refuse(item.place, f"{both}; keep one copy", image)
        elif len(groups) > 1:
            what = f"has the same bytes in several groups: {', '.join(groups)}"
            for item in items:
                delivery.refuse(item.place, what, image)
        else:
            delivery.images.append(first)
            _note_group(first, None, delivery)
            delivery.known += [_copy_of(item, first.place) for item in items[1:]]


def _copy_of(item: FoundFile, place: str, since: str = "") -> Remark:
    what = "is there already" if item.place == place else f"has the same bytes as {place}"
    return Remark(item.place, what + since, item.image)


def _note_group(item: FoundFile, settled: str | None, delivery: Delivery) -> None:
    if item.group and settled is None:
        delivery.groups[item.image] = item.group
    elif item.group not in ("", settled):
        what = f"keeps the group {settled!r} of its day" if settled else "stays without a group"
        delivery.warn(item.place, f"is known and {what}; {item.group!r} is ignored")


def suspicions(counts: Mapping[str, int], known: set[str]) -> list[str]:
    found = []
    new = sorted(set(counts) - known)
    single = [label for label in new if counts[label] == 1]
    if len(single) >= FEW and 2 * len(single) > len(counts):
        found.append(
            f"{len(single)} new classes hold one file each ({', '.join(single[:3])}, …): is this "
            "the wrong folder, one level too high or low?"
        )
    if dated := list(filter(_LIKE_A_DAY.fullmatch, new)):
        found.append(
            f"new classes are named like days ({', '.join(dated[:3])}): is this an archive of "
            "days, for dayfold run?"
        )
    same = dict[str, set[str]]()
    for label in {*counts, *known}:
        same.setdefault("".join(label.split()), set()).add(label)
    if spaced := [names for names in same.values() if len(names) > 1 and names & {*new}]:
        shown = "; ".join(" and ".join(map(repr, sorted(names))) for names in spaced[:3])
        found.append(f"classes differ by spaces only: {shown}")
    if computed := list(filter(_COMPUTED.fullmatch, new)):
        found.append(f"new classes are formulas or errors of a spreadsheet: {computed[:3]}")
    if NO_LABEL in new:
        found.append(f"{NO_LABEL!r} is no class: CVAT's ImageNet export puts untagged images there")
    if sum(counts.values()) >= MANY:
        found.append(f"{sum(counts.values())} files are many for one day")
    return found


def warn_of_lookalikes(delivery: Delivery, history: History, earlier: pl.DataFrame) -> None:
    """Warn of each image that looks like one of another class, of this delivery or earlier."""
    rows = [(item.look, item.place, item.label) for item in delivery.images]
    found = looks.nearest(rows, ["label"], history=history, earlier=earlier)
    for (_, place, _), (_, other, label), bits in found:
        what = f"looks like {other}, which is {label!r} ({bits} of {looks.BITS} bits differ)"
        delivery.warn(place, what)
