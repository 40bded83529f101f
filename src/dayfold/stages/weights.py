"""weights: data versions → what an image of each counts for in today's draws."""

from collections.abc import Mapping, Sequence

from dayfold import draws
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import VersionWeight
from dayfold.project.layout import Project
from dayfold.project.params import Params

Counts = Mapping[str, Mapping[str, int]]  # day → class → training images


def step(ages: Sequence[int], *, recent: float, base: float, recent_versions: int) -> list[float]:
    """Weight by age in data versions: `recent` below `recent_versions`, `base` from there on."""
    return [recent if age < recent_versions else base for age in ages]


def expected_replay(counts: Counts, *, policy: str, size: int) -> dict[str, float]:
    """How many images of each earlier day the replay set is expected to hold."""
    by_class: dict[str, int] = {}
    for classes in counts.values():
        for label, count in classes.items():
            by_class[label] = by_class.get(label, 0) + count
    old = sum(by_class.values())
    if policy == "uniform":
        chance = {label: min(1.0, size / old) for label in by_class}
    else:
        level = float(draws.even_level(list(by_class.values()), size))
        chance = {label: min(1.0, level / count) for label, count in by_class.items()}
    return {
        day: sum(count * chance[label] for label, count in classes.items())
        for day, classes in counts.items()
    }


def shares(pool: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Each day's share of the draws when it has `pool` images of weight `weights` in the pool."""
    mass = [count * weight for count, weight in zip(pool, weights, strict=True)]
    return [part / (sum(mass) or 1.0) for part in mass]


def run(project: Project, params: Params) -> None:
    """Count the training images of each data version; write data/weights.csv."""
    history = manifest.history(project, params.day)
    tally = history.split("train").group_by("day", "label").len()
    counts: dict[str, dict[str, int]] = {day: {} for day in history.days}
    for day, label, count in tally.sort("day", "label").iter_rows():
        counts[day][label] = count
    days = list(history.days)
    ages = list(range(len(days) - 1, -1, -1))
    weights = step(ages, **params.weights.model_dump())
    old = {day: counts[day] for day in days[:-1]}
    replayed = expected_replay(old, policy=params.replay.policy, size=params.replay.size)
    images = [sum(counts[day].values()) for day in days]
    pool = [*(replayed[day] for day in days[:-1]), images[-1]]
    share = shares(pool, weights)
    rows = zip(days, ages, images, weights, share, strict=True)
    tables.write(project.weights, VersionWeight, rows)
    print(
        f"today: {images[-1]} training images of weight {weights[-1]:g}, "
        f"{share[-1]:.1%} of the draws expected"
    )
    if old:
        print(
            f"earlier: {sum(images[:-1])} on {len(old)} days, {sum(replayed.values()):.0f} "
            f"replayed, {1 - share[-1]:.1%} of the draws expected"
        )
