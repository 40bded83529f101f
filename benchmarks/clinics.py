"""Simulated clinics: do the splits of new patients keep what docs/intake.md says, day after day?

    python benchmarks/clinics.py [--clinics 1000]

5 to 200 patients a day with 1 to 30 images each, 2 to 12 classes of 1:1 to 1:50, of which some
join later, over 1 to 60 days. A patient's images are of one class in every third clinic, of up to
three in the next, of any in the last.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random

import numpy as np
from measuring import command_line

from builders import FRACTIONS
from dayfold.ledger.manifest import SPLITS
from dayfold.ledger.splits import WHOLE, assign

FEWEST = {"train": 1, "validation": 6, "test": 3}  # groups of a class, from which a split has one


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


def simulate(
    seed: int, most_images: int = 1_000_000
) -> tuple[dict[str, list[float]], list[str], list[str]]:
    """Return how far off each split was, day by day, and what must not be.

    The first has, by "whole" or "class", the distances from the aims in images of the largest
    patient; then a line for each that is too far, and for each split without a patient of a class
    that has enough.
    """
    off: dict[str, list[float]] = {"whole": [], "class": []}
    far, missing = list[str](), list[str]()
    images, groups = (
        defaultdict[str, Counter[str]](Counter),
        defaultdict[str, Counter[str]](Counter),
    )
    largest = Counter[str]()
    for day, arrived in enumerate(days_of(seed, most_images)):
        before = {
            label: {split: (images[label][split], groups[label][split]) for split in SPLITS}
            for label in images
        }
        given = assign(arrived, {}, before=before, fractions=FRACTIONS)
        today = set()
        for patient, counts in arrived.items():
            for label, count in (*counts.items(), (WHOLE, counts.total())):
                images[label][given[patient]] += count
                groups[label][given[patient]] += 1
                largest[label] = max(largest[label], count)
                today.add(label)
        for label in sorted(today):
            own, where = images[label], f"clinic {seed}, day {day}, {label or 'all'}"
            most = max(abs(own[split] - FRACTIONS[split] * own.total()) for split in SPLITS)
            off["whole" if label == WHOLE else "class"].append(most / largest[label])
            # Patients with images of several classes cannot please all: a class may be off by two.
            if most / largest[label] > (1 if label == WHOLE or seed % 3 == 0 else 2) + 1e-9:
                far.append(f"{where}: {most / largest[label]:.2f} patients off")
            for split in SPLITS:
                if groups[label].total() >= FEWEST[split] and not groups[label][split]:
                    missing.append(f"{where}: no {split}")
    return off, far, missing


def main() -> None:
    clinics = [simulate(seed) for seed in range(command_line(__doc__, clinics=1000).clinics)]
    for _, far, missing in clinics:
        print(*far, *missing, sep="\n", end="\n" * bool(far or missing))
    print(f"{sum(not far and not missing for _, far, missing in clinics)} of {len(clinics)} hold")
    print(f"{sum(bool(missing) for *_, missing in clinics)} lacked a class in a split")
    for name in ("whole", "class"):
        off = np.concatenate([off[name] for off, *_ in clinics])
        middle, most = np.quantile(off, (0.5, 0.99))
        print(f"{name}, patients off: {middle:.1f} (median), {most:.1f} (99%), {off.max():.1f}")


if __name__ == "__main__":
    main()
