"""Earlier training images → replay set, shares of draws.

Replay keeps old classes: on digits whose classes are absent for days, accuracy over all of them
falls from 0.98 to 0.37 without it (docs/retention.md). A few hundred images are enough. Which
images are chosen matters less, so every policy draws anew each day, by seed, day and image.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal

import polars as pl

from dayfold import draws
from dayfold.errors import CycleError
from dayfold.figures import metrics
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import PoolShare, Replayed, VersionWeight
from dayfold.project.layout import Project
from dayfold.project.params import Params

Cell = tuple[str, str]  # (day, label): a class of a data version
MINIMUM_PER_CLASS = 5  # images of every class, before the policy chooses the rest


def select(
    old: pl.DataFrame,
    *,
    weights: Mapping[str, float],
    policy: str,
    size: int,
    minimum_per_class: int = MINIMUM_PER_CLASS,
    seed: int,
    day: str,
) -> pl.DataFrame:
    """Choose `size` of the images `old` (image, path, label, day); add `key` and `reason`.

    The policy `class_balanced` takes equally many images of every class, as far as it has them;
    `uniform` gives every image the same chance; `recency` gives chances in proportion to the
    `weights` of the days; `all` takes every image. `minimum_per_class` images of every class come
    first, even where that makes the set larger than `size`; size 0 is an empty set. `reason` is the
    policy or "minimum"; the images with the smallest `key` are chosen.
    """
    columns = ("image", "path", "label", "day")
    rows, reason = old.select(columns), pl.lit(policy).alias("reason")
    if policy == "all" or not size or rows.is_empty():
        chosen = rows if policy == "all" else rows.clear()
        return chosen.with_columns(pl.lit(0.0).alias("key"), reason)
    ids = rows["image"].to_list()
    keys = draws.uniforms("replay", seed, day, ids=ids)
    if policy == "recency":
        keys = keys / rows["day"].replace_strict(weights, return_dtype=pl.Float64).to_numpy()
    order = draws.argsort(keys, ids)
    ranked = pl.DataFrame({"place": order, "key": keys[order], "label": rows["label"][order]})
    available = dict(rows.group_by("label").len().iter_rows())
    seats = dict.fromkeys(available, 0)
    if policy == "class_balanced":
        seats = draws.even_seats(available, size, "replay seats", seed, day)
    floors = {
        label: max(seats[label], min(minimum_per_class, count))
        for label, count in available.items()
    }
    # `turn` is an image's rank in its class by key.
    turn, label = pl.int_range(pl.len()).over("label"), pl.col("label")
    is_seated = turn < label.replace_strict(seats, return_dtype=pl.Int64)
    is_first = turn < label.replace_strict(floors, return_dtype=pl.Int64)
    ranked = ranked.with_columns(turn=turn, is_seated=is_seated, is_first=is_first)
    first = ranked.filter("is_first").sort("turn", "label")
    first = first.with_columns(pl.when("is_seated").then(reason).otherwise(pl.lit("minimum")))
    left = 0 if policy == "class_balanced" else max(0, size - len(first))
    rest = ranked.filter(~pl.col("is_first")).head(left).with_columns(reason)
    chosen = pl.concat([first, rest])
    return rows[chosen["place"]].with_columns(chosen.select("key", "reason"))


def pool_shares(
    *,
    today: Mapping[Cell, int],
    replayed: Mapping[Cell, int],
    old: Mapping[Cell, int],
    weights: Mapping[str, float],
    over: str,
    class_balance: float,
) -> list[PoolShare]:
    """Return the weight of an image of each day and class in today's pool, and the cell's share.

    `today`, `replayed` and `old` count training images by (day, label): those that arrived today,
    the replay set, and all earlier ones. An image has the weight of its day. With `over` "history"
    the replayed images of a class represent all its earlier ones, as if a weighted sampler drew
    from the full data set. Each class's weights are then multiplied by (mean mass / its mass) **
    `class_balance`: at 1 every class is drawn equally often.
    """
    pool = {**replayed, **today}
    weight = {cell: weights[cell[0]] for cell in pool}
    if over == "history":
        full, part = (_masses(cells, lambda cell: weights[cell[0]]) for cells in (old, replayed))
        for cell in replayed:
            weight[cell] *= full[cell[1]] / part[cell[1]]
    total = _masses(pool, weight.__getitem__)
    mean = math.fsum(total.values()) / max(1, len(total))
    # A power of Decimals is rounded in the same way on every machine; one of floats is not.
    exponent = Decimal(class_balance)
    for cell in pool:
        weight[cell] *= float((Decimal(mean) / Decimal(total[cell[1]])) ** exponent)
    everything = math.fsum(pool[cell] * weight[cell] for cell in sorted(pool))
    return [
        PoolShare(*cell, pool[cell], weight[cell], pool[cell] * weight[cell] / everything)
        for cell in sorted(pool)
    ]


def _masses(counts: Mapping[Cell, int], weight: Callable[[Cell], float]) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for cell, count in sorted(counts.items()):
        parts.setdefault(cell[1], []).append(count * weight(cell))
    return {label: math.fsum(values) for label, values in parts.items()}


def run(project: Project, params: Params) -> list[str]:
    """Choose from all training images of earlier days; write data/replay.csv and shares.csv."""
    day = params.day
    weights = dict(tables.read(project.weights, VersionWeight).select("day", "weight").iter_rows())
    if day not in weights:  # possible with `dvc repro --single-item`
        raise CycleError(f"data/weights.csv is not from {day}.", hint="dvc repro, all stages")
    images = manifest.history(project, day).split("train")
    today, old = images.filter(pl.col("day") == day), images.filter(pl.col("day") != day)
    policy, size = params.replay.policy, params.replay.size
    chosen = select(old, weights=weights, policy=policy, size=size, seed=params.seed, day=day)
    shares = pool_shares(
        today=_tally(today),
        replayed=_tally(chosen),
        old=_tally(old),
        weights=weights,
        over=params.weights.over,
        class_balance=params.weights.class_balance,
    )
    tables.write(project.shares, PoolShare, shares)
    weight = {(share.day, share.label): share.weight for share in shares}
    rows = (
        (image, path, label, at, weight[at, label], key, reason)
        for image, path, label, at, key, reason in chosen.iter_rows()
    )
    tables.write(project.replay, Replayed, rows)
    found = f"{len(chosen)} of {len(old)} earlier images ({policy})"
    lines = [found if len(old) else "no earlier images"]
    share = math.fsum(one.share for one in shares if one.day == day)
    if times := metrics.recency(share, today=len(today), old=len(old)):
        pool = len(today) + len(chosen)
        lines.append(
            f"an image of today is drawn {times:.1f} times as often as an average older one; "
            f"today's images are {share:.0%} of the draws ({len(today)} of {pool} images)"
        )
    print("\n".join(lines))
    return ["; ".join(lines)]


def _tally(rows: pl.DataFrame) -> dict[Cell, int]:
    counts = rows.group_by("day", "label").len()
    return {(day, label): count for day, label, count in counts.iter_rows()}
