"""What each policy and option is worth: six streams of digits, fifteen days each, several seeds.

    python benchmarks/retention.py FOLDER [--seeds 5] [--processes 2] [--part policies|ablation]
        [--judge test|validation]

A stream is a plain project folder without git and DVC; its days are trained and evaluated by the
same code as `dayfold backtest`. It prints Markdown tables. Every finished run is a line of
benchmarks/retention.csv and is not made again as long as its recipe is the same: interrupted, or on
another machine, it goes on where it was. Defaults are chosen by `--judge validation`: the very same
trainings, with the validation images in the place of the test images, so that no value is tuned on
a test split.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import polars as pl
import streams

from dayfold import backtest
from dayfold.backtest import POLICIES, History, Policy
from dayfold.figures import comparison
from dayfold.learning.activations import DEPTHS
from dayfold.ledger import tables
from dayfold.ledger.tables import BacktestRun
from dayfold.project import params as params_file
from dayfold.project.console import Ticker
from dayfold.project.files import canonical_json, parse_csv, sha256, write_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_suffix(".csv")
COLUMNS = {
    "judge": pl.String(),
    "stream": pl.String(),
    "recipe": pl.String(),
    **tables.schema(BacktestRun),
}
BUDGET = {  # as many updates a day as the default; a stream takes one to three minutes on one core
    "train.image_size_px": 16,
    "train.updates": 150,
    "train.threads": 1,
}

COMPARED = ("project", "naive", "cumulative")
# One thing changed at a time, on streams that ask for the opposite: to learn the rare, to keep the
# absent.
ABLATION_STREAMS = ("new classes", "rare class", "recurring")
VARIANTS: dict[str, dict[str, backtest.Value]] = {
    "weight 3.0": {"weights.recent": 3.0},
    "no class balance": {"weights.class_balance": 0.0},
    "no class balance, weight 3.0": {"weights.class_balance": 0.0, "weights.recent": 3.0},
    "class balance 0.5": {"weights.class_balance": 0.5},
    "weight 3.0 over 5": {"weights.recent": 3.0, "weights.versions": 5},
    "over history": {"weights.over": "history"},
    "replay 0": {"replay.size": 0},
    "replay 100": {"replay.size": 100},
    "replay 300": {"replay.size": 300},
    "replay 1000": {"replay.size": 1000},
    "uniform": {"replay.policy": "uniform"},
    "recency, weight 3.0 over 5": {
        "replay.policy": "recency",
        "weights.recent": 3.0,
        "weights.versions": 5,
    },
    "distill 0.5": {"train.distill": 0.5},
    "no EMA": {"train.ema_length": 0.0},
    "fp32": {"train.precision": "fp32"},
    **{f"frozen through {depth}": {"train.frozen_through": depth} for depth in DEPTHS},
}


def recipe(policy: Policy, seed: int) -> Params:
    """Return the repository's params with the benchmark's budget and a policy's changes."""
    params = params_file.read(ROOT / "params.yaml").model_copy(update={"seed": seed})
    return params_file.changed(params, {"origin.weights": "random", **BUDGET, **policy.changes})


def recipe_key(policy: Policy) -> str:
    """Return eight characters that are others as soon as a day would be trained otherwise."""
    sections = recipe(policy, 0).model_dump(include={*backtest.TUNABLE, "evaluate"})
    return sha256(canonical_json([sections, policy.full_passes]).encode())[:8]


def _stream(folder: Path, judge: str, stream: str, seed: int) -> History:
    params = recipe(POLICIES["project"], seed)
    own = folder / judge / "streams" / f"{stream}-{seed}"
    return streams.build(stream, params, own, judge=judge)


def job(folder: Path, judge: str, stream: str, policy: Policy, seed: int) -> BacktestRun:
    """Run a policy over a stream; go on with what an interrupted one left."""
    history = _stream(folder, judge, stream, seed)
    runs = folder / judge / "runs" / stream / policy.name
    scratch = Project(runs / f"{seed}-{recipe_key(policy)}")
    params = recipe(POLICIES["project"], seed)
    backtest.run_days(history, scratch, params, policy)
    return backtest.summary(scratch, params, policy.name, seed, history.days)


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

    keys = {policy.name: recipe_key(policy) for _, policy, _ in jobs}
    recorded = {at: made for at, (made, _) in done.items()}
    missing = [one for one in jobs if recorded.get(key(one)) != keys[one[1].name]]
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
            done[key(one)] = keys[one[1].name], figures
            lines = [(*at[:2], *made, *figures) for at, (*made, figures) in sorted(done.items())]
            write_csv(RESULTS, list(COLUMNS), lines)
            ticker.line(f"{one[0]}: {comparison.line(figures)}")
            ticker.advance(1)
    found: dict[str, list[BacktestRun]] = {}
    for one in jobs:
        found.setdefault(one[0], []).append(done[key(one)][1])
    return found


def markdown(found: Mapping[str, Sequence[BacktestRun]]) -> str:
    """Return a table with a row a stream and policy: means ± standard deviations over seeds."""
    names = list(comparison.COLUMNS)
    lines = ["| " + " | ".join(["stream", "policy", "seeds", *names]) + " |"]
    lines.append("|" + " --- |" * (3 + len(names)))
    for stream, runs in found.items():
        for policy, cells in comparison.means(runs).items():
            seeds = sum(one.policy == policy for one in runs)
            lines.append("| " + " | ".join([stream, policy, str(seeds), *cells]) + " |")
    return "\n".join(lines)


def claims(found: Mapping[str, Sequence[BacktestRun]]) -> Iterator[str]:
    """What is asked of the default policy, and whether it holds, a line each (means over seeds)."""

    def mean(stream: str, policy: str, figure: str) -> float:
        values = [getattr(one, figure) for one in found[stream] if one.policy == policy]
        return math.fsum(values) / len(values)

    def line(what: str, value: float, limit: float, *, least: bool = False) -> str:
        met = value >= limit if least else value <= limit
        asked = f"{'>=' if least else '<='} {limit}"
        return f"{'met   ' if met else 'MISSED'} {what}: {value:.3f} ({asked})"

    for stream in found:
        better = mean(stream, "cumulative", "average_accuracy") - mean(
            stream, "project", "average_accuracy"
        )
        yield line(f"{stream}: ACC below cumulative's", better, 0.01)
        part = mean(stream, "project", "images") / mean(stream, "cumulative", "images")
        yield line(f"{stream}: part of cumulative's images", part, 0.4)
        limit = 0.04 if stream == "new scanner" else 0.02
        yield line(f"{stream}: forgetting", mean(stream, "project", "forgetting"), limit)
    for stream, least in (("new classes", 0.9), ("rare class", 0.75)):
        if stream in found:
            f1 = mean(stream, "project", "new_f1")
            yield line(f"{stream}: F1 of a new class", f1, least, least=True)
            sure = mean(stream, "project", "new_confidence")
            yield line(f"{stream}: confidence in a new class", sure, 0.8, least=True)


def main() -> None:
    """Run what is not yet there, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", choices=("policies", "ablation"), default="policies")
    parser.add_argument("--judge", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    names, policies = tuple(streams.STREAMS), [POLICIES[name] for name in COMPARED]
    if options.part == "ablation":
        names = ABLATION_STREAMS
        policies = [POLICIES["project"], *(Policy(*variant) for variant in VARIANTS.items())]
    jobs = [
        (stream, policy, seed)
        for seed in range(options.seeds)
        for policy in policies
        for stream in names
    ]
    found = run(options.folder, options.judge, jobs, options.processes)
    print(markdown(found))
    if options.part == "policies":
        print("\n".join(claims(found)))


if __name__ == "__main__":
    main()
