"""Deliveries of an odd shape: what nobody may have meant is asked about before it is done."""

import re
from collections.abc import Mapping

MANY = 50_000  # files: a day of so many is asked about
FEW = 5  # new classes with a single file each, from which on they look like no classes

_LIKE_A_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")


def suspicions(counts: Mapping[str, int], known: set[str]) -> list[str]:
    """Say what is odd about a delivery of so many files a class, beside the known ones."""
    said = []
    new = sorted(set(counts) - known)
    single = [label for label in new if counts[label] == 1]
    dated = [label for label in new if _LIKE_A_DAY.fullmatch(label)]
    if len(single) >= FEW and 2 * len(single) > len(counts):
        said.append(
            f"{len(single)} new classes hold one file each ({', '.join(single[:3])}, …): is this "
            "the wrong folder, one level too high or low?"
        )
    if dated:
        said.append(
            f"new classes are named like days ({', '.join(dated[:3])}): is this an archive of "
            "days, for dayfold backfill?"
        )
    if sum(counts.values()) >= MANY:
        said.append(f"{sum(counts.values())} files are a great many for one day")
    return said
