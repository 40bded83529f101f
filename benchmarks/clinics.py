"""Simulated clinics: do the splits of new patients keep what docs/intake.md says, day after day?

    python benchmarks/clinics.py --clinics 1000

5 to 200 patients a day with 1 to 30 images each, 2 to 12 classes of 1:1 to 1:50, of which some
join later, over 1 to 60 days. A patient's images are of one class in every third clinic, of up to
three in the next, of any in the last.
"""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random

import numpy as np

from dayfold.ledger.manifest import SPLITS
from dayfold.ledger.splits import WHOLE, assign

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}
FEWEST = {"train": 1, "validation": 6, "test": 3}  # groups of a class, from which a split has one
KINDS = ("one class", "up to three classes", "any classes")


def days_of(seed: int, most_images: int) -> Iterator[dict[str, Counter[str]]]:
    """The days of a clinic, until it has so many images: patient → class → images."""
    random = Random(seed)  # noqa: S311
    classes = [f"class {number}" for number in range(random.randint(2, 12))]
    ratio, days = random.uniform(1, 50), random.randint(1, 60)
    shares = {one: ratio ** (-rank / (len(classes) - 1)) for rank, one in enumerate(classes)}
    joins = {one: random.choice((0, 0, 0, random.randrange(days))) for one in classes}
    joins[classes[0]] = 0
    patients, largest = round(5 * 40 ** random.random()), random.randint(1, 30)
    left = most_images
    for day in range(days):
        here = [one for one in classes if joins[one] <= day]
        arrived = {}
        for number in range(patients):
            weights = [shares[one] for one in here]
            mine = random.choices(here, weights, k=(1, 3, 100)[seed % 3])
            images = Counter(random.choices(mine, k=random.randint(1, largest)))
            arrived[f"{seed} {day} {number}"] = images
            left -= images.total()
        yield arrived
        if left < 0:
            return


class Clinic:
    """What a clinic's splits come to, day by day.

    `off` has how far each split was from its aim after each day, in images of the largest patient,
    by "whole" or "class". `broken` says where that is too far, or a class has enough patients and a
    split none, though a patient of that day could have gone elsewhere without leaving any class
    without a patient that it must have; `stuck` where none could.
    """

    def __init__(self, seed: int, most_images: int = 1_000_000) -> None:
        self.kind = KINDS[seed % 3]
        self.off: dict[str, list[float]] = {"whole": [], "class": []}
        self.broken: list[str] = []
        self.stuck: list[str] = []
        self._images: dict[str, Counter[str]] = defaultdict(Counter)
        self._groups: dict[str, Counter[str]] = defaultdict(Counter)
        self._largest: Counter[str] = Counter()
        for day, arrived in enumerate(days_of(seed, most_images)):
            before = {
                label: {split: (images[split], self._groups[label][split]) for split in SPLITS}
                for label, images in self._images.items()
            }
            given = assign(arrived, {}, before=before, fractions=FRACTIONS)
            today = [
                (given[name], {**counts, WHOLE: counts.total()}) for name, counts in arrived.items()
            ]
            self._count(today)
            for label in sorted({label for _, counts in today for label in counts}):
                self._measure(label, today, f"clinic {seed}, day {day}, {label or 'all'}: ")

    def _count(self, today: list[tuple[str, dict[str, int]]]) -> None:
        for split, counts in today:
            for label, images in counts.items():
                self._images[label][split] += images
                self._groups[label][split] += 1
                self._largest[label] = max(self._largest[label], images)

    def _measure(self, label: str, today: list[tuple[str, dict[str, int]]], where: str) -> None:
        off = self._off(self._images[label]) / self._largest[label]
        self.off["whole" if label == WHOLE else "class"].append(off)
        # Patients with images of several classes cannot please all: a class may be off by two.
        far = off > (1 if label == WHOLE or self.kind == KINDS[0] else 2) + 1e-9
        missing = [split for split in SPLITS if self._must(label, split, 0)]
        if far or missing:
            free = [one for one in today if label in one[1] and self._may_leave(*one)]
            could = missing or any(
                self._off(
                    self._images[label] + Counter({other: counts[label], split: -counts[label]})
                )
                < self._off(self._images[label])
                for split, counts in free
                for other in SPLITS
                if other != split
            )
            said = f"{where}{off:.2f} patients off, {missing} missing"
            (self.broken if free and could else self.stuck).append(said)

    def _off(self, images: Counter[str]) -> float:
        return max(abs(images[split] - FRACTIONS[split] * images.total()) for split in SPLITS)

    def _must(self, label: str, split: str, others: int) -> bool:
        """Whether a split would lack a patient that it must have, with so many others there."""
        groups = self._groups[label]
        return groups.total() >= FEWEST[split] and groups[split] <= others

    def _may_leave(self, split: str, counts: dict[str, int]) -> bool:
        return not any(self._must(label, split, 1) for label in counts)


def main() -> None:
    """Simulate clinics and print how many hold, and how far off they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clinics", type=int, default=1000)
    wanted = parser.parse_args().clinics
    began = time.monotonic()
    by_kind: dict[str, list[Clinic]] = {kind: [] for kind in KINDS}
    for seed in range(wanted):
        clinic = Clinic(seed)
        by_kind[clinic.kind].append(clinic)
        for line in (*clinic.broken, *(f"stuck: {line}" for line in clinic.stuck)):
            print(line)
    for kind, clinics in by_kind.items():
        broken = sum(bool(clinic.broken) for clinic in clinics)
        stuck = sum(bool(clinic.stuck) for clinic in clinics)
        print(
            f"{kind}: {len(clinics)} clinics, {broken} break the promise, {stuck} could not keep it"
        )
        for name in ("whole", "class"):
            off = np.concatenate([clinic.off[name] for clinic in clinics])
            middle, most = np.quantile(off, (0.5, 0.99))
            print(
                f"  {name}: off by {middle:.2f} (median), {most:.2f} (99%), {off.max():.2f} (most)"
                f" patients; more than one on {np.mean(off > 1 + 1e-9):.2%} of {len(off)} evenings"
            )
    print(f"{wanted} clinics in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
