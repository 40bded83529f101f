"""Runs of a backtest side by side."""

import math
from collections.abc import Sequence
from statistics import stdev

import polars as pl
from rich.table import Table

from dayfold.figures import evidence
from dayfold.figures.intervals import Z, figure
from dayfold.ledger.tables import BacktestRun

COLUMNS = {
    "ACC": "average_accuracy",
    "anytime ACC": "anytime_accuracy",
    "forgetting": "forgetting",
    "BWT": "backward_transfer",
    "FWT": "forward_transfer",
    "learning": "learning_accuracy",
    "w. F1": "weighted_f1",
    "worst F1": "worst_f1",
    "neg. flips": "negative_flip_rate",
    "new F1": "new_f1",
    "conf.": "new_confidence",
    "images": "images",
    "draws": "draws",
    "seconds": "seconds",
}


COSTS = ("images", "draws", "seconds")  # of these, what is no figure of the test

# Policy and seed → the units that the figures of such a run rest on, as `evidence.judge` has them.
RestsOn = dict[tuple[str, int], dict[str, int]]


def means(runs: Sequence[BacktestRun], rests_on: RestsOn | None = None) -> dict[str, list[str]]:
    """Return policy → a cell a column of COLUMNS: mean ± standard deviation over its seeds.

    The figures are marked that are too few to judge, as far as it is known what they rest on.
    """
    found: dict[str, list[str]] = {}
    for policy in dict.fromkeys(run.policy for run in runs):
        mine = [run for run in runs if run.policy == policy]
        found[policy] = [
            _spread([getattr(run, name) for run in mine]) + _few(mine, name, rests_on or {})
            for name in COLUMNS.values()
        ]
    return found


def _few(runs: Sequence[BacktestRun], name: str, rests_on: RestsOn) -> str:
    """Say " few" where a figure of any of these runs rests on too few."""
    key = "new.f1" if name.startswith("new_") else name
    is_few = any(
        not evidence.is_judged({"evidence": rests_on[run.policy, run.seed]}, key)
        for run in runs
        if (run.policy, run.seed) in rests_on and getattr(run, name) is not None
    )
    return " few" * (is_few and name not in COSTS)


def _spread(values: Sequence[float | int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return figure(None)
    mean = math.fsum(known) / len(known)
    if mean >= 100 or all(isinstance(value, int) for value in known):
        return f"{mean:,.0f}"
    if len(known) == 1:
        return figure(mean)
    return f"{figure(mean)} ±{figure(stdev(known))}"


def table(runs: Sequence[BacktestRun], days: int, rests_on: RestsOn | None = None) -> Table:
    """Return the comparison as a table for the terminal: a policy a column, a figure a row.

    The last row has the seconds that one of so many days takes to read and train.
    """
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    found = means(runs, rests_on)
    drawn.add_column("")
    for policy in found:
        drawn.add_column(policy, justify="right")
    for row, name in enumerate(COLUMNS):
        drawn.add_row(name, *(cells[row] for cells in found.values()))
    a_day = {name: [run.seconds / days for run in runs if run.policy == name] for name in found}
    drawn.add_row("seconds a day", *map(_spread, a_day.values()))
    return drawn


def line(run: BacktestRun, rests_on: RestsOn | None = None) -> str:
    """Return what is said when a run is done."""
    acc, lost = (
        _spread([getattr(run, name)]) + _few([run], name, rests_on or {})
        for name in ("average_accuracy", "forgetting")
    )
    return f"{run.policy} (seed {run.seed}): ACC {acc}, forgetting {lost}, {run.seconds:.0f} s"


def frozen_ahead(frozen: pl.DataFrame, trained: Sequence[pl.DataFrame]) -> list[str]:
    """Say that the frozen start is ahead of the project's policy, if it is by more than chance.

    Given are the predictions of the last day, the frozen start's with a column `group`, and of the
    policy a table a seed.
    The 95% interval of the difference of both ACC takes patients as independent, not their images.
    """
    hit = (pl.col("predicted") == pl.col("label")).cast(pl.Float64)
    means = pl.concat(trained).group_by("image").agg(trained=hit.mean())
    both = frozen.filter(split="test").join(means, on="image")
    each = (hit - pl.col("trained")) / (pl.len().over("day") * pl.col("day").n_unique())
    unit = pl.when(pl.col("group") == "").then("image").otherwise("group").alias("unit")
    parts = both.select(unit, each.alias("gain")).group_by("unit").agg(pl.col("gain").sum())["gain"]
    gain, half = math.fsum(parts), Z * math.sqrt(math.fsum(parts**2))
    if evidence.is_too_few(len(parts)) or gain <= half:
        return []
    return [
        f"frozen is ahead of project by {gain:.3f} ACC (95%: {gain - half:.3f} to "
        f"{gain + half:.3f}). The start's features separate your classes better than training "
        "does. Compare: dayfold backtest --set train.frozen_through=all --set replay.policy=all"
    ]
