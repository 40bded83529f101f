"""Train, validation or test: given once, per group."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dayfold import draws
from dayfold.errors import IntakeError, LedgerError
from dayfold.ledger import tables
from dayfold.ledger.manifest import SPLITS, History
from dayfold.ledger.tables import ImageGroup
from dayfold.project.layout import Project

SIDES = range(len(SPLITS))
WHOLE = ""  # all classes as one; no class has this name
# Of the whole beside a class: one after another is tried, until one comes near enough.
WEIGHTS = (0.5, 1.0, 0.25, 2.0, 0.1, 4.0)
GAP = (100, 1, 2)  # what a split counts that lacks a group: training before test
MOST_TURNS = 8
NO_GROUP = "no patient id (data.group does not match)"

Counted = Sequence[tuple[str, int]]  # the classes of a group, and its images of each; WHOLE last
Had = Mapping[str, tuple[int, int]]  # split → images, groups


def group_of(path: str, expression: str, told: str = "") -> str:
    """Return what the expression's only (…) finds in the path; else what was `told`; else none.

    `told` is the group that a DICOM file's ids make.
    """
    group = in_path(path, expression) or told
    if expression and not group:
        raise IntakeError(f"{path}: {NO_GROUP}")
    return group


def in_path(path: str, expression: str) -> str:
    """Return what the expression's only (…) finds in a path; nothing where it finds none."""
    found = re.search(expression, path) if expression else None
    return (found and found.group(1)) or ""


@dataclass(frozen=True)
class Units:
    """What is split as one: `of` maps each new image to its unit.

    `settled` maps a unit to the split that its earlier images give it, and `live` to how many of
    them each split has now, where `data.group` was not always the same; in two of them if it only
    now joins what was split before.
    """

    of: Mapping[str, str]
    settled: Mapping[str, str]
    live: Mapping[str, Mapping[str, int]]

    def torn(self) -> list[str]:
        """Return the units of new images whose earlier images lie in more than one split."""
        return sorted({unit for unit in self.of.values() if len(self.live.get(unit, ())) > 1})


def units(
    images: Iterable[tuple[str, str, str, str]], *, earlier: History, expression: str
) -> Units:
    """Return what belongs together of (image, path, label, group) tuples and all earlier images.

    Two images do that have a name in common: the group that they were given, and what each
    `data.group` that the project ever had finds in their paths; and so does what is joined by
    others. So a patient who has another name, or none, by another expression stays one unit.
    Where that joins images of several splits, train comes first: what a model has learnt from is
    never measured on.
    """
    is_as_ever = set(earlier.expressions) <= {expression}
    ever = () if is_as_ever else (*earlier.expressions, expression)
    above: dict[str, str] = {}  # a name, and a lesser one that it is joined with
    sides = list(earlier.groups.iter_rows())
    counted: list[tuple[str, str]] = []
    columns = ("path", "group", "split")
    if not is_as_ever:
        gone = earlier.corrections.filter(action="withdraw")
        for table, into in ((earlier.images, counted), (gone, sides)):
            for path, group, split in table.select(columns).iter_rows():
                if names := _names(path, group, ever):
                    into.append((_joined(above, names), split))
    of = {
        image: _joined(above, _names(path, group, ever) or [image])
        for image, path, _, group in images
    }
    live: dict[str, Counter[str]] = {}
    for name, split in counted:
        live.setdefault(_root(above, name), Counter())[split] += 1
    settled = {unit: min(splits, key=SPLITS.index) for unit, splits in live.items()}
    for name, split in sides:
        unit = _root(above, name)
        settled[unit] = min(settled.get(unit, split), split, key=SPLITS.index)
    return Units({image: _root(above, name) for image, name in of.items()}, settled, live)


def _names(path: str, group: str, expressions: Sequence[str]) -> list[str]:
    found = (in_path(path, expression) for expression in expressions)
    return [name for name in (group, *found) if name]


def _root(above: dict[str, str], name: str) -> str:
    """The least of the names that this one was joined with, directly or through others."""
    while (higher := above.get(name, name)) != name:
        above[name] = above.get(higher, higher)
        name = higher
    return name


def _joined(above: dict[str, str], names: Sequence[str]) -> str:
    roots = {_root(above, name) for name in names}
    above |= dict.fromkeys(roots, min(roots))
    return min(roots)


@dataclass
class _Class:
    """What the splits have of a class, and what they should have; lists are as SPLITS.

    `wanted` are the splits that must have a group of it: training, and what rounds to one group or
    more; by default test from 3 groups on, validation from 6. `largest` is what today's largest
    group has of it, in images: how near to its aims it can come.
    """

    images: list[int]
    groups: list[int]
    aims: list[float]
    wanted: list[int]
    largest: int


def _class(had: Had, fractions: Mapping[str, float], new: Sequence[int]) -> _Class:
    """What there is of a class before its `new` groups, with so many images, have splits."""
    images, groups = ([had.get(split, (0, 0))[of] for split in SPLITS] for of in (0, 1))
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
    before: Mapping[str, Had],
    fractions: Mapping[str, float],
) -> dict[str, str]:
    """Give each new group, and each new image without one, its split.

    `groups` maps a group to how many images it has of each class, `alone` an image to its class,
    `before` a class, and WHOLE, to how many images and groups each split has of it (an image
    without a group is one), `fractions` a split to its share. A function of names and counts alone:
    ties are broken by a hash of the names.
    """
    counted = {
        name: [*sorted(groups[name].items()), (WHOLE, sum(groups[name].values()))]
        for name in _by_hash(list(groups))
    }
    of_class: dict[str, list[int]] = {}
    for counts in counted.values():
        for label, images in counts:
            of_class.setdefault(label, []).append(images)
    given, now, missed = dict[str, int](), dict[str, _Class](), None
    for weight in WEIGHTS if groups else ():
        classes = {
            label: _class(before.get(label, {}), fractions, new) for label, new in of_class.items()
        }
        placed = _place(counted, classes, weight)
        if missed is None or _missed(classes) < missed:
            given, now, missed = placed, classes, _missed(classes)
        if missed == (0, 1.0, 1.0):
            break
    names: dict[str, list[str]] = {}
    for name, label in alone.items():
        names.setdefault(label, []).append(name)
    for label, mine in names.items():
        one = now.get(label) or _class(before.get(label, {}), fractions, [])
        given |= _deal(mine, one, fractions)
    return {name: SPLITS[side] for name, side in given.items()}


def _missed(classes: Mapping[str, _Class]) -> tuple[int, float, float]:
    """How far a day is from its aims: lacking groups, distance of the whole, of the worst class.

    Distances are in images of the largest group; up to one is as near as can be asked for.
    """
    off = {
        label: max(abs(aim - images) for aim, images in zip(one.aims, one.images, strict=True))
        for label, one in classes.items()
    }
    near = {label: max(1.0, round(off[label] / one.largest, 9)) for label, one in classes.items()}
    gaps = (GAP[side] for one in classes.values() for side in one.wanted if not one.groups[side])
    return sum(gaps), near[WHOLE], max(near.values())


def _place(
    groups: Mapping[str, Counted], classes: Mapping[str, _Class], weight: float
) -> dict[str, int]:
    """Give groups their splits, one after another, and count them in.

    The rule is that of scikit-learn's StratifiedGroupKFold: a group goes where the sum of squared
    distances from the aims, of all its classes and of the whole, falls most; here distances are
    counted in images of the largest group. Large groups come first. Then each is placed again,
    until none moves, small ones first, and before all else into splits with gaps.
    """
    order = sorted(groups, key=lambda name: -groups[name][-1][1])
    given: dict[str, int] = {}

    def count(name: str, side: int, sign: int) -> None:
        for label, images in groups[name]:
            classes[label].images[side] += sign * images
            classes[label].groups[side] += sign

    for turn in range(MOST_TURNS):
        before = dict(given)
        for name in reversed(order) if turn else order:
            if turn:
                count(name, given[name], -1)
            gaps, gains = [0] * len(SIDES), [0.0] * len(SIDES)
            for label, images in groups[name]:
                one = classes[label]
                scale = (1.0 if label else weight) * images / one.largest**2
                for side in SIDES:
                    gains[side] += scale * (one.aims[side] - one.images[side])
                for side in one.wanted if turn else ():
                    gaps[side] += 0 if one.groups[side] else GAP[side]
            # round: a difference of 1e-17 must not decide what a tie decides.
            given[name] = max(SIDES, key=lambda side: (gaps[side], round(gains[side], 9)))
            count(name, given[name], 1)
        if given == before:
            break
    return given


def _deal(
    images: Sequence[str], of: _Class, fractions: Mapping[str, float]
) -> Iterator[tuple[str, int]]:
    # Each to the split that lacks most: so the fractions are met within one image.
    total = sum(of.images)
    for name in _by_hash(images):
        total += 1
        # The first of a class is trained on, however small the fraction.
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
    """Return the groups that were told, by image; none where the file is not there."""
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
    """Write more groups, by image, into a day's file."""
    known = read_groups(project, day)
    rows = sorted((known | dict(groups)).items())
    tables.write(project.groups(day), ImageGroup, rows)
