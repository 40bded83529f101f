"""Train, validation or test: once per group.

All images of a patient share a split, or the figures would be too good (grouping.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dayfold import draws
from dayfold.ledger.manifest import SPLITS

SIDES = range(len(SPLITS))
WHOLE = ""  # stands for all classes together; no class has this name
# Weights of WHOLE against that of a class, tried in turn until the result is near enough.
WEIGHTS = (0.5, 1.0, 0.25, 2.0, 0.1, 4.0)
GAP = (100, 1, 2)  # penalties of splits without a group, as SPLITS: training matters most
MOST_TURNS = 8

ClassCounts = Sequence[tuple[str, int]]  # a group's images by class; WHOLE last
SplitCounts = Mapping[str, tuple[int, int]]  # split → images, groups


@dataclass
class _Class:
    """The images and groups that each split has of a class, and should have, as lists by SPLITS.

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

    `groups` maps a group to its number of images of each class, and `alone` an image to its class.
    `before` maps a class, or WHOLE, to the images and groups that each split has of it (an image
    without a group counts as a group). `fractions` maps a split to its share. The result depends on
    names and counts alone; ties are broken by a hash of the names.
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

    As in scikit-learn's StratifiedGroupKFold, a group goes where the sum of squared distances from
    the aims, of all its classes and of WHOLE, falls most. Distances are in images of the largest
    group. Large groups come first. Then each group is placed again, small ones first and preferably
    into splits that lack a group, until none moves.
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
            # Rounded, so that a difference of 1e-17 does not decide a tie.
            side_of[name] = max(SIDES, key=lambda side: (gaps[side], round(gains[side], 9)))
            count(name, side_of[name], 1)
        if side_of == before:
            break
    return side_of


def _deal(
    images: Sequence[str], of: _Class, fractions: Mapping[str, float]
) -> Iterator[tuple[str, int]]:
    # Each image goes to the split that lacks most, so fractions are met within one image.
    total = sum(of.images)
    for name in _by_hash(images):
        total += 1
        # The first image of a class is for training, however small that fraction is.
        sides = SIDES if of.groups[0] else SIDES[:1]
        lacks = {s: round(fractions[SPLITS[s]] * total - of.images[s], 9) for s in sides}
        side = max(sides, key=lacks.__getitem__)
        of.images[side] += 1
        of.groups[side] += 1
        yield name, side


def _by_hash(names: Sequence[str]) -> list[str]:
    keys = draws.uniforms("split", ids=names)
    return [name for _, name in sorted(zip(keys, names, strict=True))]
