"""Train, validation or test: once per group.

All images of a patient share a split, or the figures would be too good. A patient whom an older
`data.group` knew by another name, or did not know, keeps the earlier split.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dayfold import draws
from dayfold.errors import IntakeError, LedgerError
from dayfold.ledger import tables
from dayfold.ledger.manifest import SPLITS, History
from dayfold.ledger.tables import ImageGroup
from dayfold.project.layout import Project

SIDES = range(len(SPLITS))
WHOLE = ""  # all classes as one; no class has this name
# The weight of WHOLE beside that of a class: they are tried in turn until one comes near enough.
WEIGHTS = (0.5, 1.0, 0.25, 2.0, 0.1, 4.0)
GAP = (100, 1, 2)  # the penalty of a split without a group, as SPLITS: training matters most
MOST_TURNS = 8
NO_GROUP = "no patient id (data.group does not match)"

ClassCounts = Sequence[tuple[str, int]]  # the classes of a group and its images; WHOLE last
SplitCounts = Mapping[str, tuple[int, int]]  # split → images, groups


class NewImage(NamedTuple):
    """An image of today that has no split yet; `image` is its sha256."""

    image: str
    path: str
    label: str
    group: str


def group_of(path: str, expression: str, dicom_group: str = "") -> str:
    """Return the group that `data.group` finds in a path, else that of the DICOM ids, else "".

    Raises IntakeError where there is an expression and no group.
    """
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

    `settled` maps a unit to the split of its earlier images. Where `data.group` was changed, `live`
    maps a unit to the number of its earlier images in each split; a unit that joins two earlier
    ones may be in two splits.
    """

    of: Mapping[str, str]
    settled: Mapping[str, str]
    live: Mapping[str, Mapping[str, int]]

    def in_several_splits(self) -> list[str]:
        """Return the units of new images whose earlier images are in more than one split."""
        return sorted({unit for unit in self.of.values() if len(self.live.get(unit, ())) > 1})


def units(images: Iterable[NewImage], *, earlier: History, expression: str) -> Units:
    """Return the units of new images, joined with those of all earlier images.

    Two images are in one unit if they have a name in common, directly or through other images. The
    names of an image are its group and all that the project's expressions, past and present, find
    in its path. So a patient whom another expression names differently, or not at all, stays one
    unit. Where a unit joins images of several splits, train wins: no model is tested on images that
    it was trained on.
    """
    is_unchanged = set(earlier.expressions) <= {expression}
    expressions = () if is_unchanged else (*earlier.expressions, expression)
    parents: dict[str, str] = {}  # a union-find forest: name → a lesser name of the same unit
    settling = list(earlier.groups.iter_rows())
    living: list[tuple[str, str]] = []
    columns = ("path", "group", "split")
    if not is_unchanged:
        withdrawn = earlier.corrections.filter(action="withdraw")
        for table, into in ((earlier.images, living), (withdrawn, settling)):
            for path, group, split in table.select(columns).iter_rows():
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
    """Return the least name of a name's unit."""
    while (parent := parents.get(name, name)) != name:
        parents[name] = parents.get(parent, parent)
        name = parent
    return name


def _join(parents: dict[str, str], names: Sequence[str]) -> str:
    roots = {_root(parents, name) for name in names}
    parents |= dict.fromkeys(roots, min(roots))
    return min(roots)


@dataclass
class _Class:
    """The images and groups that each split has of a class, and should have; lists are as SPLITS.

    `aims` are in images. `wanted` are the splits that must have a group: training, and each whose
    share rounds to one group or more; by default test from 3 groups on, validation from 6.
    `largest` is the number of images in today's largest group: the precision that can be reached.
    """

    images: list[int]
    groups: list[int]
    aims: list[float]
    wanted: list[int]
    largest: int


def _class(before: SplitCounts, fractions: Mapping[str, float], new: Sequence[int]) -> _Class:
    """Return the state of a class before its `new` groups, of so many images each, have splits."""
    images, groups = ([before.get(split, (0, 0))[of] for split in SPLITS] for of in (0, 1))
    parts = [fractions[split] for split in SPLITS]
    return _Class(
        images=images,
        groups=groups,
        aims=[part * (sum(images) + sum(new)) for part in parts],
        wanted=[s for s in SIDES if not s or parts[s] * (sum(groups) + len(new)) > 0.5],
        largest=max(new, default=0),
    )


def assign(
    groups: Mapping[str, Mapping[str, int]],
    alone: Mapping[str, str],
    *,
    before: Mapping[str, SplitCounts],
    fractions: Mapping[str, float],
) -> dict[str, str]:
    """Return the split of each new group, and of each new image without one.

    `groups` maps a group to its number of images of each class, `alone` an image to its class,
    `before` a class, or WHOLE, to the images and groups that each split has of it (an image without
    a group counts as a group), `fractions` a split to its share. The result depends on names and
    counts alone; ties are broken by a hash of the names.
    """
    counted = {
        name: [*sorted(groups[name].items()), (WHOLE, sum(groups[name].values()))]
        for name in _by_hash(list(groups))
    }
    of_class: dict[str, list[int]] = {}
    for counts in counted.values():
        for label, images in counts:
            of_class.setdefault(label, []).append(images)
    best, state, least = dict[str, int](), dict[str, _Class](), None
    for weight in WEIGHTS if groups else ():
        classes = {
            label: _class(before.get(label, {}), fractions, new) for label, new in of_class.items()
        }
        placed = _place(counted, classes, weight)
        if least is None or _error(classes) < least:
            best, state, least = placed, classes, _error(classes)
        if least == (0, 1.0, 1.0):
            break
    names: dict[str, list[str]] = {}
    for name, label in alone.items():
        names.setdefault(label, []).append(name)
    for label, members in names.items():
        one = state.get(label) or _class(before.get(label, {}), fractions, [])
        best |= _deal(members, one, fractions)
    return {name: SPLITS[side] for name, side in best.items()}


def _error(classes: Mapping[str, _Class]) -> tuple[int, float, float]:
    """Return penalties for missing groups, the distance of WHOLE, and that of the worst class.

    Distances from the aims are in images of the largest group; up to 1 is the best possible.
    """
    off = {
        label: max(abs(aim - images) for aim, images in zip(one.aims, one.images, strict=True))
        for label, one in classes.items()
    }
    near = {label: max(1.0, round(off[label] / one.largest, 9)) for label, one in classes.items()}
    gaps = (GAP[side] for one in classes.values() for side in one.wanted if not one.groups[side])
    return sum(gaps), near[WHOLE], max(near.values())


def _place(
    groups: Mapping[str, ClassCounts], classes: Mapping[str, _Class], weight: float
) -> dict[str, int]:
    """Give groups their splits, one after another, and count them in `classes`.

    The rule is that of scikit-learn's StratifiedGroupKFold: a group goes where the sum of squared
    distances from the aims, of all its classes and of WHOLE, falls most. Distances are in images of
    the largest group. Large groups come first. Then each group is placed again, small ones first
    and preferably into splits that lack a group, until none moves.
    """
    order = sorted(groups, key=lambda name: -groups[name][-1][1])
    side_of: dict[str, int] = {}

    def count(name: str, side: int, sign: int) -> None:
        for label, images in groups[name]:
            classes[label].images[side] += sign * images
            classes[label].groups[side] += sign

    for turn in range(MOST_TURNS):
        before = dict(side_of)
        for name in reversed(order) if turn else order:
            if turn:
                count(name, side_of[name], -1)
            gaps, gains = [0] * len(SIDES), [0.0] * len(SIDES)
            for label, images in groups[name]:
                one = classes[label]
                scale = (1.0 if label else weight) * images / one.largest**2
                for side in SIDES:
                    gains[side] += scale * (one.aims[side] - one.images[side])
                for side in one.wanted if turn else ():
                    gaps[side] += 0 if one.groups[side] else GAP[side]
            # round: a difference of 1e-17 must not decide what a tie decides.
            side_of[name] = max(SIDES, key=lambda side: (gaps[side], round(gains[side], 9)))
            count(name, side_of[name], 1)
        if side_of == before:
            break
    return side_of


def _deal(
    images: Sequence[str], of: _Class, fractions: Mapping[str, float]
) -> Iterator[tuple[str, int]]:
    # Each image goes to the split that lacks most, so the fractions are met within one image.
    total = sum(of.images)
    for name in _by_hash(images):
        total += 1
        # The first image of a class is for training, however small that fraction.
        sides = SIDES if of.groups[0] else SIDES[:1]
        lacks = {s: round(fractions[SPLITS[s]] * total - of.images[s], 9) for s in sides}
        side = max(sides, key=lacks.__getitem__)
        of.images[side] += 1
        of.groups[side] += 1
        yield name, side


def _by_hash(names: Sequence[str]) -> list[str]:
    keys = draws.uniforms("split", ids=names)
    return [name for _, name in sorted(zip(keys, names, strict=True))]


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
    known = read_groups(project, day)
    rows = sorted((known | dict(groups)).items())
    tables.write(project.groups(day), ImageGroup, rows)
