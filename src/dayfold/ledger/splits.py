"""Train, validation or test: given once, for ever, and the same for all images of a group."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dayfold import draws
from dayfold.errors import IntakeError, LedgerError
from dayfold.ledger import tables
from dayfold.ledger.manifest import SPLITS, History
from dayfold.ledger.tables import ImageGroup
from dayfold.project.layout import Project

NO_GROUP = "no patient id (data.group does not match)"


def group_of(path: str, expression: str, told: str = "") -> str:
    """Return what the expression's only (…) finds in the path; else what was `told`; else none.

    `told` is the group that a DICOM file's ids make.
    """
    found = re.search(expression, path) if expression else None
    if found and found.group(1):
        return found.group(1)
    if expression and not told:
        raise IntakeError(f"{path}: {NO_GROUP}")
    return told


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
    kin = _Kin()
    sides = list(earlier.groups.iter_rows())
    counted: list[tuple[str, str]] = []
    columns = ("path", "group", "split")
    if not is_as_ever:
        gone = earlier.corrections.filter(action="withdraw")
        for table, into in ((earlier.images, counted), (gone, sides)):
            for path, group, split in table.select(columns).iter_rows():
                if names := _names(path, group, ever):
                    into.append((kin.joined(names), split))
    of = {
        image: kin.joined(_names(path, group, ever) or [image]) for image, path, _, group in images
    }
    live: dict[str, Counter[str]] = {}
    for name, split in counted:
        live.setdefault(kin.root(name), Counter())[split] += 1
    settled = {unit: min(splits, key=SPLITS.index) for unit, splits in live.items()}
    for name, split in sides:
        unit = kin.root(name)
        settled[unit] = min(settled.get(unit, split), split, key=SPLITS.index)
    return Units({image: kin.root(name) for image, name in of.items()}, settled, live)


def _names(path: str, group: str, expressions: Sequence[str]) -> list[str]:
    found = (re.search(expression, path) for expression in expressions if expression)
    return [name for name in (group, *(match.group(1) for match in found if match)) if name]


class _Kin:
    """Names that were joined, directly or through others; each such set goes by its least name."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        """Return the least of the names that this one is joined with."""
        above = self._above
        while (higher := above.get(name, name)) != name:
            above[name] = above.get(higher, higher)
            name = higher
        return name

    def joined(self, names: Sequence[str]) -> str:
        """Join these names; return one of them."""
        roots = {self.root(name) for name in names}
        least = min(roots)
        for root in roots:
            self._above[root] = least
        return least


def assign(
    newcomers: Mapping[str, str],
    *,
    before: Mapping[str, Mapping[str, int]],
    fractions: Mapping[str, float],
) -> dict[str, str]:
    """Give each new group its split.

    `newcomers` maps a group (or an image without one) to the class that it is counted in, `before`
    a class to how many groups each split has of it, `fractions` a split to its share. Newcomers
    are taken class by class in the order of a hash of their names, and each goes to the split that
    lacks most of its fraction: so the fractions are met within one group in every class.
    """
    by_class: dict[str, list[str]] = {}
    for name, label in newcomers.items():
        by_class.setdefault(label, []).append(name)
    given: dict[str, str] = {}
    for label, names in by_class.items():
        counts = {split: before.get(label, {}).get(split, 0) for split in SPLITS}
        for name in _by_hash(names):
            total = sum(counts.values()) + 1
            # round: a difference of 1e-17 must not decide what a tie decides.
            lacks = {s: round(fractions[s] * total - counts[s], 9) for s in SPLITS}
            # The first of a class is trained on, however small the fraction.
            split = max(SPLITS, key=lacks.__getitem__) if total > 1 else SPLITS[0]
            counts[split] += 1
            given[name] = split
    return given


def _by_hash(names: Sequence[str]) -> list[str]:
    keys = draws.uniforms("split", ids=names)
    return [name for _, name in sorted(zip(keys, names, strict=True))]


def write_no_groups(project: Project, day: str) -> None:
    """Write a day's file of groups without any, unless it is there."""
    if not project.groups(day).exists():
        tables.write(project.groups(day), ImageGroup, [])


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
