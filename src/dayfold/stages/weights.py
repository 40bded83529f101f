"""Data versions → recency weights.

An image of today has the weight `recent`. The weight falls linearly with the age of an image's data
version, down to `base` at the age of `versions`.
"""

from collections.abc import Sequence

from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import VersionWeight
from dayfold.project.console import plural
from dayfold.project.layout import Project
from dayfold.project.params import Params


def version_weights(
    ages: Sequence[int], *, recent: float, base: float, versions: int
) -> list[float]:
    """Return the weight of an image by the age of its data version (0 = today).

    With `versions` 1 today's images have the weight `recent` and all others `base`.
    """
    return [base + (recent - base) * max(0, versions - age) / versions for age in ages]


def run(project: Project, params: Params) -> list[str]:
    """Count the training images of each data version; write data/weights.csv.

    Returns no line, as the next stage reports the effect of the weights.
    """
    history = manifest.history(project, params.day)
    counts = dict(history.split("train").group_by("day").len().iter_rows())
    days = history.days
    ages, of = range(len(days) - 1, -1, -1), params.weights
    weights = version_weights(ages, recent=of.recent, base=of.base, versions=of.versions)
    images = [counts.get(day, 0) for day in days]
    tables.write(project.weights, VersionWeight, zip(days, ages, images, weights, strict=True))
    summary = f"{plural(images[-1], 'training image')} of today, weight {weights[-1]:g}"
    if earlier := len(days) - 1:
        low, high = min(weights[:-1]), max(weights[:-1])
        span = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
        summary += f"; {sum(images[:-1]):,} of {plural(earlier, 'earlier day')}, weight {span}"
    print(summary)
    return []
