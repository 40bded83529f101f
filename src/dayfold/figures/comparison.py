"""Results of a backtest's runs, and their comparison."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
from rich.table import Table

from dayfold.figures import counts, evidence, log, retention
from dayfold.figures.intervals import Z, figure
from dayfold.ledger import manifest
from dayfold.ledger.tables import BacktestRun, PolicyAccuracy
from dayfold.project.layout import Project
from dayfold.project.params import Params

COLUMNS = {
    "ACC": "average_accuracy",
    "anytime ACC": "anytime_accuracy",
    "forgetting": "forgetting",
    "BWT": "backward_transfer",
    "FWT": "forward_transfer",
    "learning ACC": "learning_accuracy",
    "weighted F1": "weighted_f1",
    "worst F1": "worst_f1",
    "newly wrong": "negative_flip_rate",
    "new F1": "new_f1",
    "new conf.": "new_confidence",
    "images": "images",
    "draws": "draws",
    "seconds": "seconds",
}
COSTS = ("images", "draws", "seconds")  # the columns that are costs, not figures


def finished_day(scratch: Project, day: str) -> Path:
    return scratch.root / "days" / f"{day}.json"


class Result(NamedTuple):
    """The figures of a finished run; `tested` says on how many test images.

    `rests_on` has the units of the figures, as in `evidence.judge`, if known; its `new` is the
    smallest of all days.
    """

    run: BacktestRun
    rests_on: Mapping[str, int] = MappingProxyType({})
    tested: str = ""


def summary(
    scratch: Project, params: Params, policy: str, seed: int, days: Sequence[str]
) -> Result:
    lines = log.lines(scratch, params.model_copy(update={"day": days[-1]}))
    pairs = [(line, line.figures) for line in lines if line.figures and line.day in days]
    figures, last = [figures for _, figures in pairs], pairs[-1][1]
    # Not the first day of the project, where all classes are new.
    later = [(line, figures) for line, figures in pairs if line is not lines[0]]
    new = [figures["new"] for _, figures in later if figures["new"]["f1"] is not None]
    facts = [json.loads(finished_day(scratch, day).read_bytes()) for day in days]
    found: dict[str, Any] = {
        "policy": policy,
        "seed": seed,
        "anytime_accuracy": _mean([one["average_accuracy"] for one in figures]),
        "negative_flip_rate": _mean([one["negative_flip_rate"] for one in figures]),
        "new_f1": _mean([one["f1"] for one in new]),
        "new_confidence": _mean([one["confidence"] for one in new]),
        "images": sum(fact["images"] for fact in facts),
        "draws": sum(fact["draws"] for fact in facts),
        "seconds": round(sum(fact["seconds"] for fact in facts), 1),
    }
    found |= {name: last[name] for name in BacktestRun._fields if name not in found}
    units = min((figures["evidence"]["new"] for line, figures in later if line.new), default=0)
    known = evidence.of(manifest.history(scratch, days[-1]), most=params.evaluate.max_per_cohort)
    tested = known.on(sum(scores["images"] for scores in last["classes"].values()))
    return Result(BacktestRun(**found), {**last["evidence"], "new": units}, tested)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def curve(scratch: Project, policy: str, seed: int, days: Sequence[str]) -> list[PolicyAccuracy]:
    cells = retention.cohorts(counts.read(scratch, days[-1]))
    return [PolicyAccuracy(policy, seed, cell.day, cell.cohort, cell.accuracy) for cell in cells]


def means(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return policy → mean ± standard deviation over its seeds, for each of COLUMNS."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.run.policy, []).append(result)
    return {name: [_mark(own, one) for one in COLUMNS.values()] for name, own in found.items()}


def _mark(results: Sequence[Result], name: str) -> str:
    key = "new.f1" if name.startswith("new_") else name
    defined = [result for result in results if getattr(result.run, name) is not None]
    is_few = name not in COSTS and any(
        one.rests_on and not evidence.is_judged({"evidence": one.rests_on}, key) for one in defined
    )
    return _spread([getattr(result.run, name) for result in results]) + " few" * is_few


def _spread(values: Sequence[float | int | None]) -> str:
    known, mean = [value for value in values if value is not None], _mean(values)
    if mean is None:
        return figure(None)
    if mean >= 100 or all(isinstance(value, int) for value in known):
        return f"{mean:,.0f}"
    if len(known) == 1:
        return figure(mean)
    return f"{figure(mean)} ±{figure(stdev(known))}"


def table(results: Sequence[Result], days: int) -> Table:
    """Return a table for the terminal: a policy a column, a figure a row, seconds a day last."""
    drawn, runs = Table(box=None, pad_edge=False, header_style="bold"), [one.run for one in results]
    cells = means(results)
    drawn.add_column("", no_wrap=True)
    for policy in cells:
        drawn.add_column(policy, justify="right")
    for row, name in enumerate(COLUMNS):
        drawn.add_row(name, *(column[row] for column in cells.values()))
    seconds = {name: [run.seconds / days for run in runs if run.policy == name] for name in cells}
    drawn.add_row("seconds a day", *map(_spread, seconds.values()))
    return drawn


def line(result: Result) -> str:
    run = result.run
    acc, forgetting = (_mark([result], name) for name in ("average_accuracy", "forgetting"))
    figures = f"ACC {acc}, forgetting {forgetting}, {run.seconds:.0f} s"
    return f"{run.policy} (seed {run.seed}): {figures}"


def frozen_ahead(frozen: pl.DataFrame, trained: Sequence[pl.DataFrame]) -> list[str]:
    """Return a sentence if the policy frozen beats the project's own by more than chance.

    `frozen` and `trained` are predictions of the last day: one table with a column `group`, and a
    table for each seed. The 95% interval of the difference of both ACC assumes that patients are
    independent, not images.
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
