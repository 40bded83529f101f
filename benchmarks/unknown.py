"""What yesterday's model calls unknown: new classes found, false alarms, a change of the scanner.

    python benchmarks/unknown.py FOLDER [--seeds 3] [--stream NAME …]

Each day of a stream of benchmarks/streams.py is trained and evaluated by the stages themselves, so
the figures are those that a project records in data/unknown/. Without --stream: digits alone.
"""

import argparse
from pathlib import Path
from statistics import fmean

import polars as pl
import streams
from streams import ALL, STREAMS

from dayfold import backtest
from dayfold.backtest import POLICIES
from dayfold.ledger import tables
from dayfold.project.layout import Project


def run(folder: Path, stream: str, seed: int) -> pl.DataFrame:
    """Run the default policy over a stream; its tables of what was unknown, with the day."""
    params = streams.params(stream, seed)
    history = streams.build(stream, params, folder / "streams" / f"{stream}-{seed}")
    scratch = Project(folder / "runs" / f"{stream}-{seed}")
    backtest.run_days(history, scratch, params, POLICIES["project"])
    found = [tables.unknown(scratch, day).with_columns(day=pl.lit(day)) for day in history.days]
    return pl.concat(found).filter(label="").with_columns(seed=pl.lit(seed))


def main() -> None:
    """Print a line a stream; of a new scanner the false alarms of each day too."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stream", action="append", choices=tuple(ALL), metavar="NAME")
    options = parser.parse_args()
    for stream in options.stream or STREAMS:
        rows = pl.concat([run(options.folder, stream, seed) for seed in range(options.seeds)])
        said = []
        for new, what in ((1, "found"), (0, "false alarms")):
            part = rows.filter(pl.col("new") == new, pl.col("unknown").is_not_null())
            if len(part):
                said.append(f"{what} {part['unknown'].sum() / part['images'].sum():.3f}")
        areas = rows["auroc"].drop_nulls().to_list()
        if areas:
            said.append(f"AUROC {fmean(areas):.3f} ({len(areas)} days, {min(areas):.3f} up)")
        print(f"{stream}: {', '.join(said)}", flush=True)
        if ALL[stream].changes_on is not None:
            known = rows.filter(pl.col("new") == 0, pl.col("unknown").is_not_null())
            by = known.group_by("day").agg(pl.col("unknown", "images").sum()).sort("day")
            parts = by.select(pl.col("unknown") / pl.col("images")).to_series()
            print("  false alarms by day:", " ".join(f"{part:.2f}" for part in parts))


if __name__ == "__main__":
    main()
