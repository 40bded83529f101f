"""Data versions → what an image counts for.

`recent` today, and less the older: in a straight line to `base` at the age of `versions`.
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
    """Return the weight of an image by its age in data versions (0 = today).

    With `versions` 1 today's images have the weight `recent` and all others `base`.
    """
    return [base + (recent - base) * max(0, versions - age) / versions for age in ages]


def run(project: Project, params: Params) -> list[str]:
    """Count the training images of each data version; write data/weights.csv.

    Returns no line: what the weights come to is told by the next stage.
    """
    history = manifest.history(project, params.day)
    counts = dict(history.split("train").group_by("day").len().iter_rows())
    days = history.days
    ages = range(len(days) - 1, -1, -1)
    own = params.weights
    weights = version_weights(ages, recent=own.recent, base=own.base, versions=own.versions)
    images = [counts.get(day, 0) for day in days]
    tables.write(project.weights, VersionWeight, zip(days, ages, images, weights, strict=True))
    said = f"{plural(images[-1], 'training image')} of today, weight {weights[-1]:g}"
    if earlier := len(days) - 1:
        low, high = min(weights[:-1]), max(weights[:-1])
        shown = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
        said += f"; {sum(images[:-1]):,} of {plural(earlier, 'earlier day')}, weight {shown}"
    print(said)
    return []
