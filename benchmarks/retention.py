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

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import polars as pl
import streams
from measuring import command_line
from streams import ALL, PICTURES, SIZES, STREAMS

from dayfold import backtest
from dayfold.backtest import POLICIES, Policy
from dayfold.figures import comparison
from dayfold.learning.inputs import DEPTHS
from dayfold.ledger import tables
from dayfold.ledger.tables import BacktestRun
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, plural, show
from dayfold.project.files import canonical_json, parse_csv, sha256, write_csv
from dayfold.project.layout import Project

RESULTS = Path(__file__).with_suffix(".csv")
COLUMNS = {
    **dict.fromkeys(("judge", "stream", "recipe"), pl.String()),
    **tables.schema(BacktestRun),
}
ABLATION: dict[str, dict[str, backtest.Value]] = {
    "weight 1.0": {"weights.recent": 1.0, "weights.versions": 1},
    "weight 3.0": {"weights.versions": 1},
    "no class balance": {"weights.class_balance": 0.0},
    "no class balance, weight 3.0": {"weights.class_balance": 0.0, "weights.versions": 1},
    "class balance 0.5": {"weights.class_balance": 0.5},
    "over history": {"weights.over": "history"},
    **{f"replay {size}": {"replay.size": size} for size in (0, 100, 300, 1000)},
    "uniform": {"replay.policy": "uniform"},
    "recency": {"replay.policy": "recency"},
    "distill 0.5": {"train.distill": 0.5},
    "no EMA": {"train.ema_length": 0.0},
    **{f"frozen through {depth}": {"train.frozen_through": depth} for depth in DEPTHS},
}
RATES: dict[str, dict[str, backtest.Value]] = {
    f"learning rate {rate}": {"train.learning_rate": rate}
    for rate in (0.0001, 0.0002, 0.0005, 0.002)
}
UPDATES: dict[str, dict[str, backtest.Value]] = {
    f"updates {updates}": {"train.updates": updates} for updates in (50, 300, 450)
}
CHOICES = POLICIES | {
    name: Policy(name, changes) for name, changes in {**ABLATION, **RATES, **UPDATES}.items()
}
PARTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # streams, and policies or variants
    "policies": (tuple(STREAMS), ("project", "naive", "cumulative")),
    # One thing changed at a time, on streams that ask for the opposite: to learn the rare, to keep
    # the absent.
    "ablation": (("new classes", "rare class", "recurring"), ("project", *ABLATION)),
    "recency": (tuple(STREAMS), ("project", "weight 1.0", "weight 3.0")),
    "pictures": (tuple(PICTURES), ("project", "joint", "frozen", "naive")),
    "choices": (tuple(PICTURES), ("project", "replay 1000", "updates 300", *RATES)),
    "updates": (tuple(SIZES), ("project", "updates 50", "updates 450")),
}
Run = tuple[str, str, str, int]  # judge, stream, policy, seed


def recipe_key(stream: str, policy: str) -> str:
    """Return eight characters that are others as soon as a day would be trained otherwise."""
    params = params_file.with_changes(streams.params(stream, 0), CHOICES[policy].changes)
    sections = params.model_dump(include={*backtest.TUNABLE, "evaluate"})
    return sha256(canonical_json([sections, CHOICES[policy].full_passes]).encode())[:8]


def made(folder: Path, judge: str, stream: str, policy: str, seed: int) -> BacktestRun:
    """Run a policy over a stream; go on with what an interrupted one left."""
    history = streams.build(stream, seed, folder / judge / "streams" / f"{stream}-{seed}", judge)
    key = recipe_key(stream, policy)
    scratch = Project(folder / judge / "runs" / stream / policy / f"{seed}-{key}")
    params = streams.params(stream, seed)
    backtest.run_days(history, scratch, params, CHOICES[policy])
    return comparison.summary(scratch, params, policy, seed, history.days).run


def results() -> dict[Run, tuple[str, BacktestRun]]:
    found = {}
    for judge, stream, key, *figures in parse_csv(
        RESULTS.read_bytes(), COLUMNS, RESULTS.name
    ).iter_rows():
        one = BacktestRun(*figures)
        found[judge, stream, one.policy, one.seed] = key, one
    return found


def main() -> None:
    """Run what is not yet there, `processes` at a time, and print the tables."""
    judges = ("test", "validation")
    options = command_line(
        __doc__, "folder", seeds=5, processes=2, part=tuple(PARTS), judge=judges, stream=[]
    )
    names, policies = PARTS[options.part]
    names = options.stream or names
    keys = {
        (options.judge, stream, policy, seed): recipe_key(stream, policy)
        for seed in range(options.seeds)
        for policy in policies
        for stream in names
    }
    done = results()
    missing = [run for run, key in keys.items() if run not in done or done[run][0] != key]
    for judge, stream, seed in dict.fromkeys((run[0], run[1], run[3]) for run in missing):
        streams.build(stream, seed, options.folder / judge / "streams" / f"{stream}-{seed}", judge)
    with (
        Ticker("runs", len(missing), "runs") as ticker,
        ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool,
    ):
        waiting = {pool.submit(made, options.folder, *run): run for run in missing}
        for finished in as_completed(waiting):
            run, figures = waiting[finished], finished.result()
            done[run] = keys[run], figures
            lines = [(*at[:2], key, *one) for at, (key, one) in sorted(done.items())]
            write_csv(RESULTS, list(COLUMNS), lines)
            ticker.line(f"{run[1]}: {comparison.line(comparison.Result(figures))}")
            ticker.advance(1)
    for stream in names:
        own = [done[run][1] for run in keys if run[1] == stream]
        print(f"\n{stream}, {plural(options.seeds, 'seed')}")
        show(comparison.table([*map(comparison.Result, own)], ALL[stream].days))
        if options.part == "policies":
            images = {one.policy: one.images for one in own}
            print(f"images of cumulative's: {images['project'] / images['cumulative']:.1%}")


if __name__ == "__main__":
    main()
