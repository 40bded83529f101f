"""weights: data versions → what an image of each counts for in today's draws."""

from collections.abc import Sequence
from decimal import Decimal

from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import VersionWeight
from dayfold.project.layout import Project
from dayfold.project.params import Params


def version_weights(
    ages: Sequence[int],
    *,
    schedule: str,
    recent: float,
    base: float,
    recent_versions: int,
    half_life_versions: float,
) -> list[float]:
    """Return the weight of an image by its age in data versions (0 = today).

    `step`: `recent` below `recent_versions`, `base` from there on. `linear`: from `recent` today in
    a straight line to `base` at `recent_versions`. `exponential`: `base` + (`recent` - `base`)
    halved every `half_life_versions`. With `recent_versions` 1, linear is step.
    """
    if schedule == "step":
        return [recent if age < recent_versions else base for age in ages]
    if schedule == "linear":
        return [
            base + (recent - base) * max(0, recent_versions - age) / recent_versions for age in ages
        ]
    # Decimal: its power is rounded in one way on every machine, that of a float is not.
    half_life = Decimal(half_life_versions)
    parts = [float(Decimal(2) ** (-age / half_life)) for age in ages]
    return [base + (recent - base) * part for part in parts]


def run(project: Project, params: Params) -> None:
    """Count the training images of each data version; write data/weights.csv."""
    history = manifest.history(project, params.day)
    counts = dict(history.split("train").group_by("day").len().iter_rows())
    days = history.days
    ages = range(len(days) - 1, -1, -1)
    options = params.weights.model_dump(exclude={"over", "class_balance"})
    weights = version_weights(ages, **options)
    images = [counts.get(day, 0) for day in days]
    tables.write(project.weights, VersionWeight, zip(days, ages, images, weights, strict=True))
    print(f"today: {images[-1]} training images of weight {weights[-1]:g}")
    if len(days) > 1:
        low, high = min(weights[:-1]), max(weights[:-1])
        shown = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
        print(f"earlier: {sum(images[:-1])} on {len(days) - 1} days, of weight {shown}")
