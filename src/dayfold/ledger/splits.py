"""Train, validation or test: given once, for ever, and the same for all images of a group."""

import re
from collections.abc import Mapping, Sequence

from dayfold import draws
from dayfold.errors import IntakeError
from dayfold.ledger.manifest import SPLITS

NO_GROUP = "no group in it by data.group"


def group_of(path: str, expression: str, told: str = "") -> str:
    """Return what the expression's only (…) finds in the path; else what was `told`; else none.

    `told` is the group that a DICOM file's ids make. Raises IntakeError where there is an
    expression, it finds nothing and nothing was told: a patient is never guessed.
    """
    found = re.search(expression, path) if expression else None
    if found and found.group(1):
        return found.group(1)
    if expression and not told:
        raise IntakeError(f"{path}: {NO_GROUP}")
    return told


def assign(
    newcomers: Mapping[str, str],
    *,
    before: Mapping[str, Mapping[str, int]],
    fractions: Mapping[str, float],
) -> dict[str, str]:
    """Give each new group its split.

    `newcomers` maps a group (or an image without one) to the class that it is counted in, `before`
    a class to how many groups each split has of it, `fractions` a split to its share.
    Newcomers are taken class by class in the order of a hash of their names, and each goes to the
    split that lacks most of its fraction. So the fractions are met within one group in every class
    however few come a day, the first of a class is trained on, and nothing but names decides.
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
