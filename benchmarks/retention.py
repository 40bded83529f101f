"""What each policy and option is worth, on the streams of benchmarks/streams.py, several seeds.

    python benchmarks/retention.py FOLDER [--seeds 5] [--processes 2]
        [--part policies|ablation|recency|pictures|choices|updates] [--judge test|validation]
        [--stream NAME …]

A run takes two to three minutes on one core for digits, and four to ten for pictures. The days are
trained and evaluated by the same code as `dayfold backtest`. It prints a table a stream. Every
finished run is a line of benchmarks/retention.csv and is not made again as long as its recipe is
the same: interrupted, or on another machine, it goes on where it was. Defaults are chosen by
`--judge validation`: the very same trainings, with the validation images in the place of the test
images, so that no value is tuned on a test split.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import polars as pl
import streams
from streams import ALL, PICTURES, SIZES, STREAMS

from dayfold import backtest
from dayfold.backtest import POLICIES, BacktestDays, Policy
from dayfold.figures import comparison
from dayfold.learning.inputs import DEPTHS
from dayfold.ledger import tables
from dayfold.ledger.tables import BacktestRun
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, show
from dayfold.project.files import canonical_json, parse_csv, sha256, write_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params

RESULTS = Path(__file__).with_suffix(".csv")
COLUMNS = {
    "judge": pl.String(),
    "stream": pl.String(),
    "recipe": pl.String(),
    **tables.schema(BacktestRun),
}

LEAST_F1 = {"new classes": 0.9, "rare class": 0.75}  # of a new class
VARIANTS: dict[str, dict[str, backtest.Value]] = {
    "weight 1.0": {"weights.recent": 1.0, "weights.versions": 1},
    "weight 3.0": {"weights.versions": 1},
    "no class balance": {"weights.class_balance": 0.0},
    "no class balance, weight 3.0": {"weights.class_balance": 0.0, "weights.versions": 1},
    "class balance 0.5": {"weights.class_balance": 0.5},
    "over history": {"weights.over": "history"},
    "replay 0": {"replay.size": 0},
    "replay 100": {"replay.size": 100},
    "replay 300": {"replay.size": 300},
    "replay 1000": {"replay.size": 1000},
    "uniform": {"replay.policy": "uniform"},
    "recency": {"replay.policy": "recency"},
    "distill 0.5": {"train.distill": 0.5},
    "no EMA": {"train.ema_length": 0.0},
    "fp32": {"train.precision": "fp32"},
    **{f"frozen through {depth}": {"train.frozen_through": depth} for depth in DEPTHS},
}
ON_PICTURES: dict[str, dict[str, backtest.Value]] = {
    "updates 300": {"train.updates": 300},
    **{
        f"learning rate {rate}": {"train.learning_rate": rate}
        for rate in (0.0001, 0.0002, 0.0005, 0.002)
    },
}
BY_UPDATES: dict[str, dict[str, backtest.Value]] = {
    f"updates {updates}": {"train.updates": updates} for updates in (50, 450)
}
PARTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # streams, and policies or variants
    "policies": (tuple(STREAMS), ("project", "naive", "cumulative")),
    # One thing changed at a time, on streams that ask for the opposite: to learn the rare, to keep
    # the absent.
    "ablation": (("new classes", "rare class", "recurring"), ("project", *VARIANTS)),
    "recency": (tuple(STREAMS), ("project", "weight 1.0", "weight 3.0")),
    "pictures": (tuple(PICTURES), ("project", "joint", "frozen", "naive")),
    "choices": (tuple(PICTURES), ("project", "replay 1000", *ON_PICTURES)),
    "updates": (tuple(SIZES), ("project", *BY_UPDATES)),
}
CHOICES = {
    **POLICIES,
    **{
        name: Policy(name, changes)
        for name, changes in {**VARIANTS, **ON_PICTURES, **BY_UPDATES}.items()
    },
}


def recipe(stream: str, policy: Policy, seed: int) -> Params:
    """Return a stream's params with a policy's changes."""
    return params_file.with_changes(streams.params(stream, seed), policy.changes)


def recipe_key(stream: str, policy: Policy) -> str:
    """Return eight characters that are others as soon as a day would be trained otherwise."""
    sections = recipe(stream, policy, 0).model_dump(include={*backtest.TUNABLE, "evaluate"})
    return sha256(canonical_json([sections, policy.full_passes]).encode())[:8]


def _stream(folder: Path, judge: str, stream: str, seed: int) -> BacktestDays:
    own = folder / judge / "streams" / f"{stream}-{seed}"
    return streams.build(stream, streams.params(stream, seed), own, judge=judge)


def job(folder: Path, judge: str, stream: str, policy: Policy, seed: int) -> BacktestRun:
    """Run a policy over a stream; go on with what an interrupted one left."""
    history = _stream(folder, judge, stream, seed)
    runs = folder / judge / "runs" / stream / policy.name
    scratch = Project(runs / f"{seed}-{recipe_key(stream, policy)}")
    params = streams.params(stream, seed)
    backtest.run_days(history, scratch, params, policy)
    return comparison.summary(scratch, params, policy.name, seed, history.days).run


Job = tuple[str, Policy, int]  # stream, policy, seed
Results = dict[tuple[str, str, str, int], tuple[str, BacktestRun]]


def results() -> Results:
    """Return (judge, stream, policy, seed) → recipe and figures of every run on record."""
    found: Results = {}
    if RESULTS.exists():
        lines = parse_csv(RESULTS.read_bytes(), COLUMNS, RESULTS.name)
        for judge, stream, made, *figures in lines.iter_rows():
            one = BacktestRun(*figures)
            found[judge, stream, one.policy, one.seed] = made, one
    return found


def run(
    folder: Path, judge: str, jobs: Sequence[Job], processes: int
) -> dict[str, list[BacktestRun]]:
    """Run what is not on record, `processes` at a time; the runs a stream, in the jobs' order."""
    done = results()

    def key(one: Job) -> tuple[str, str, str, int]:
        stream, policy, seed = one
        return judge, stream, policy.name, seed

    keys = {(stream, policy.name): recipe_key(stream, policy) for stream, policy, _ in jobs}
    missing = [one for one in jobs if done.get(key(one), ("",))[0] != keys[one[0], one[1].name]]
    with (
        Ticker("runs", len(missing), "runs") as ticker,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        needed = dict.fromkeys((folder, judge, stream, seed) for stream, _, seed in missing)
        for made in [pool.submit(_stream, *one) for one in needed]:
            made.result()
        waiting = {pool.submit(job, folder, judge, *one): one for one in missing}
        for finished in as_completed(waiting):
            one, figures = waiting[finished], finished.result()
            done[key(one)] = keys[one[0], one[1].name], figures
            lines = [(*at[:2], *made, *figures) for at, (*made, figures) in sorted(done.items())]
            write_csv(RESULTS, list(COLUMNS), lines)
            ticker.line(f"{one[0]}: {comparison.line(comparison.Result(figures))}")
            ticker.advance(1)
    found: dict[str, list[BacktestRun]] = {}
    for one in jobs:
        found.setdefault(one[0], []).append(done[key(one)][1])
    return found


def claims(stream: str, runs: Sequence[BacktestRun]) -> Iterator[str]:
    """What is asked of the default policy, and whether it holds, a line each (means over seeds)."""

    def mean(policy: str, figure: str) -> float:
        return fmean(getattr(one, figure) for one in runs if one.policy == policy)

    below = mean("cumulative", "average_accuracy") - mean("project", "average_accuracy")
    part = mean("project", "images") / mean("cumulative", "images")
    asked = [
        ("ACC below cumulative's", below, 0.01),
        ("part of cumulative's images", part, 0.4),
        ("forgetting", mean("project", "forgetting"), 0.04 if stream == "new scanner" else 0.02),
    ]
    if stream in LEAST_F1:  # of a new class; here as what it lacks of 1
        asked.append(
            ("F1 of a new class lacks", 1 - mean("project", "new_f1"), 1 - LEAST_F1[stream])
        )
        asked.append(("confidence in it lacks", 1 - mean("project", "new_confidence"), 0.2))
    for what, value, limit in asked:
        met = "met   " if value <= limit else "MISSED"
        yield f"{met} {stream}: {what}: {value:.3f} (<= {limit:.2f})"


def main() -> None:
    """Run what is not yet there, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", choices=tuple(PARTS), default="policies")
    parser.add_argument("--judge", choices=("test", "validation"), default="test")
    parser.add_argument("--stream", action="append", choices=tuple(ALL), metavar="NAME")
    options = parser.parse_args()
    names, policies = PARTS[options.part]
    jobs = [
        (stream, CHOICES[policy], seed)
        for seed in range(options.seeds)
        for policy in policies
        for stream in options.stream or names
    ]
    for stream, runs in run(options.folder, options.judge, jobs, options.processes).items():
        print(f"\n{stream}, {options.seeds} seeds")
        show(comparison.table([*map(comparison.Result, runs)], ALL[stream].days))
        if options.part == "policies":
            print(*claims(stream, runs), sep="\n")


if __name__ == "__main__":
    main()
