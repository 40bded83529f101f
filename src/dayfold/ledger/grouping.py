"""Groups: which images show one patient.

An image's group is what a label file names, else what `data.group` finds in its path, else the
DICOM ids. If `data.group` changes, images that an older expression put together stay together.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dayfold.errors import IntakeError, LedgerError
from dayfold.ledger import tables
from dayfold.ledger.intake.delivery import FoundFile, Remark
from dayfold.ledger.manifest import SPLITS, History
from dayfold.ledger.tables import ImageGroup
from dayfold.project.console import plural
from dayfold.project.files import escaped
from dayfold.project.layout import Project

NO_GROUP = "no patient id (data.group does not match)"
MANY = 10  # DICOM files with one patient's id, which an anonymizer may have given to all
SHOWN = 3  # paths shown with their patients
NO_MATCH = "no match"
WORDS = "patient|subject|subj|study|case|pat|pt|p"
# The separator before a patient's id, and its prefix: P013_2.png, case-12/2.png, scan_pat7.png.
_ID = re.compile(rf"([/_. -])((?:{WORDS})[_-]?)\d+(?![A-Za-z0-9])", re.IGNORECASE)


class NewImage(NamedTuple):
    """An image of today that has no split yet; `image` is its sha256."""

    image: str
    path: str
    label: str
    group: str


def group_of(path: str, expression: str, dicom_group: str = "") -> str:
    """Return the group in a path, else the DICOM one; IntakeError if an expression finds none."""
    group = in_path(path, expression) or dicom_group
    if expression and not group:
        raise IntakeError(f"{path}: {NO_GROUP}")
    return group


def in_path(path: str, expression: str) -> str:
    """Return the text that the expression's only (…) matches in a path, or ""."""
    found = re.search(expression, path) if expression else None
    return (found and found.group(1)) or ""


@dataclass(frozen=True)
class Units:
    """Groups of images that share a split: `of` maps each new image to its unit.

    `settled` maps a unit to the split of its earlier images. If `data.group` was changed, `live`
    maps a unit to the number of its earlier images in each split: a unit that joins two earlier
    ones may be in two splits.
    """

    of: Mapping[str, str]
    settled: Mapping[str, str]
    live: Mapping[str, Mapping[str, int]]

    def in_several_splits(self) -> list[str]:
        return sorted({unit for unit in self.of.values() if len(self.live.get(unit, ())) > 1})


def units(images: Iterable[NewImage], *, earlier: History, expression: str) -> Units:
    """Return the units of new images, joined with those of all earlier images.

    Two images are in one unit if they share a name, directly or through other images. The names of
    an image are its group and all that the project's expressions, past and present, find in its
    path. So a patient stays one unit even if another expression finds a different name, or none. If
    a unit joins images of several splits, train wins: no model is tested on images that it was
    trained on.
    """
    is_unchanged = set(earlier.expressions) <= {expression}
    expressions = () if is_unchanged else (*earlier.expressions, expression)
    parents: dict[str, str] = {}  # a union-find forest: name → a smaller name of the same unit
    settling = list(earlier.groups.iter_rows())
    living: list[tuple[str, str]] = []
    if not is_unchanged:
        withdrawn = earlier.corrections.filter(action="withdraw")
        for table, into in ((earlier.images, living), (withdrawn, settling)):
            for path, group, split in table.select("path", "group", "split").iter_rows():
                if names := _names(path, group, expressions):
                    into.append((_join(parents, names), split))
    of = {
        image: _join(parents, _names(path, group, expressions) or [image])
        for image, path, _, group in images
    }
    live: dict[str, Counter[str]] = {}
    for name, split in living:
        live.setdefault(_root(parents, name), Counter())[split] += 1
    settled = {unit: min(splits, key=SPLITS.index) for unit, splits in live.items()}
    for name, split in settling:
        unit = _root(parents, name)
        settled[unit] = min(settled.get(unit, split), split, key=SPLITS.index)
    return Units({image: _root(parents, name) for image, name in of.items()}, settled, live)


def _names(path: str, group: str, expressions: Sequence[str]) -> list[str]:
    found = (in_path(path, expression) for expression in expressions)
    return [name for name in (group, *found) if name]


def _root(parents: dict[str, str], name: str) -> str:
    while (parent := parents.get(name, name)) != name:
        parents[name] = parents.get(parent, parent)
        name = parent
    return name


def _join(parents: dict[str, str], names: Sequence[str]) -> str:
    roots = {_root(parents, name) for name in names}
    parents |= dict.fromkeys(roots, min(roots))
    return min(roots)


def read_groups(project: Project, day: str) -> dict[str, str]:
    """Return the groups that label files named, by image; none where the file is missing."""
    if not project.groups(day).exists():
        return {}
    groups: dict[str, str] = {}
    twice = []
    for image, group in tables.read(project.groups(day), ImageGroup).iter_rows():
        if groups.setdefault(image, group) != group:
            twice.append(f"{image[:12]}… is in {groups[image]!r} and {group!r}")
    if twice:
        name = project.name(project.groups(day))
        raise LedgerError(f"{name} names two groups of an image:", problems=twice)
    return groups


def add_groups(project: Project, day: str, groups: Mapping[str, str]) -> None:
    rows = sorted((read_groups(project, day) | dict(groups)).items())
    tables.write(project.groups(day), ImageGroup, rows)


# Lines to print about patients, before their images are split.


def patients(
    paths: Sequence[tuple[FoundFile, str]], expression: str, *, is_by_csv: bool
) -> Iterator[str]:
    """Yield a line on the patients that the expression finds in the first paths.

    Without an expression it suggests one. Files whose group a CSV or DICOM names need neither,
    unless most of DICOM's name the same patient.
    """
    paths = [(item, path) for item, path in paths if not item.group]
    if expression:
        yield from _examples(
            [(item.place, group_of(path, expression, item.ids)) for item, path in paths]
        )
        return
    ids = Counter(item.ids for item, _ in paths if item.ids)
    count = max(ids.values(), default=0)
    if count >= MANY and 2 * count > ids.total():
        yield (
            f"{count} of {ids.total()} DICOM files name one patient, so they are in one split. If "
            "an anonymizer gave them that id, before dvc repro: dayfold add … --group REGEX"
        )
    unknown = [(item, path) for item, path in paths if not item.ids]
    places = [
        (["/" + Path(path).name for _, path in unknown], "the same command with --group '{}'")
    ]
    if is_by_csv:  # its folders are not in the project's paths
        folders = [f"/{Path(item.place).parent}/" for item, _ in unknown]
        places.append((folders, "give them as the column group of the CSV"))
    for names, hint in places:
        if likely := _likely(names):
            regex, found = likely
            yield escaped(
                f"{found.total()} of {len(names)} names hold what looks like a patient's id "
                f"({min(found)}), and data.group is empty: images of one patient may be trained on "
                f"and tested on. Before dvc repro: {hint.format(regex)}"
            )
            return


def returning(
    paths: Sequence[tuple[FoundFile, str]], expression: str, known: Collection[str]
) -> Iterator[str]:
    """Yield a line on the patients among these files that earlier days have images of."""
    groups = {item.group or group_of(path, expression, item.ids) for item, path in paths} - {""}
    if again := groups.intersection(known):
        are = "is known from an earlier day" if len(again) == 1 else "are known from earlier days"
        of = plural(len(groups), "patient")
        yield f"{len(again)} of {of} {are}: new images join the split of the old ones"


def alike(groups: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return lines on groups that differ from another one by case, signs or leading zeros only."""
    new, same = set(groups), dict[tuple[str, ...], set[str]]()
    for group in {*new, *known}:
        parts = re.findall(r"\d+|[^\W\d_]+", group.casefold().removesuffix(".0"))
        same.setdefault(tuple(part.lstrip("0") for part in parts), set()).add(group)
    found = [sorted(names) for names in same.values() if len(names) > 1 and names & new]
    return [" and ".join(map(repr, names)) for names in sorted(found)]


def patients_again(
    known: Sequence[Remark], present: Mapping[str, tuple[str, str]], expression: str
) -> Iterator[str]:
    """Yield a line on the patients that a new expression finds among images of the open day."""
    if expression:
        here = [(one.place, present[one.image][1]) for one in known if one.image in present]
        found = [(place, in_path(path, expression) or NO_MATCH) for place, path in here]
        # Files without a match come first: snapshot refuses them, unless DICOM ids name patients.
        yield from _examples(sorted(found, key=lambda one: one[1] != NO_MATCH))


def _examples(groups: Sequence[tuple[str, str]]) -> Iterator[str]:
    if groups:
        first = {group: place for place, group in reversed(groups)}
        found = [(place, group) for place, group in groups if first[group] == place]
        shown = "; ".join(f"{place} → {group}" for place, group in found[:SHOWN])
        patients = plural(len(first.keys() - {NO_MATCH}), "patient")
        yield escaped(f"{patients} by data.group: {shown}")


def regrouped(before: str, now: str, sealed: Sequence[str]) -> Iterator[str]:
    yield escaped(f"params.yaml: data.group is '{now}'" + f", it was '{before}'" * bool(before))
    if sealed:
        yield (
            "images of sealed days keep their groups and splits; new ones join a patient whom this "
            "or an earlier expression finds (docs/intake.md, Groups)"
        )


def _likely(names: Sequence[str]) -> tuple[str, Counter[str]] | None:
    """Return an expression for ids in most names, and each id's count; None if none comes twice."""
    heads = Counter(match.groups() for name in names if (match := _ID.search(name)))
    if not heads:
        return None
    (before, head), _ = heads.most_common(1)[0]
    expression = rf"{re.escape(before) if before == '.' else before}({head}\d+)"
    ids = Counter(match[1] for name in names if (match := re.search(expression, name)))
    is_likely = 2 * ids.total() >= len(names) and len(ids) < ids.total()
    return (expression, ids) if is_likely else None
