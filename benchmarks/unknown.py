"""What yesterday's model calls unknown: new classes found, false alarms, a change of the scanner.

    python benchmarks/unknown.py FOLDER [--seeds 3] [--stream NAME …]

Each day of a stream of benchmarks/streams.py is trained and evaluated by the stages themselves, so
the figures are those that a project records in data/unknown/. Without --stream: digits alone.
"""

from pathlib import Path
from statistics import fmean

import polars as pl
import streams
from measuring import command_line

from dayfold import backtest
from dayfold.backtest import POLICIES
from dayfold.ledger import tables
from dayfold.project.layout import Project


def run(folder: Path, stream: str, seed: int) -> pl.DataFrame:
    """Run the default policy over a stream; its tables of what was unknown, with the day."""
    history = streams.build(stream, seed, folder / "streams" / f"{stream}-{seed}")
    scratch = Project(folder / "runs" / f"{stream}-{seed}")
    backtest.run_days(history, scratch, streams.params(stream, seed), POLICIES["project"])
    found = [tables.unknown(scratch, day).with_columns(day=pl.lit(day)) for day in history.days]
    return pl.concat(found).filter(label="")


def main() -> None:
    options = command_line(__doc__, "folder", seeds=3, stream=[*streams.STREAMS])
    called = pl.sum("unknown") / pl.sum("images")
    for stream in options.stream:
        rows = pl.concat([run(options.folder, stream, seed) for seed in range(options.seeds)])
        areas = rows["auroc"].drop_nulls().to_list()
        if areas:
            print(f"{stream}: AUROC {fmean(areas):.3f} ({len(areas)} days)", flush=True)
        judged = rows.filter(pl.col("unknown").is_not_null()).sort("new", "day")
        for new, what in ((1, "found"), (0, "false alarms")):
            own = judged.filter(new=new)
            by_day = own.group_by("day", maintain_order=True).agg(part=called)["part"]
            parts = " ".join(f"{part:.2f}" for part in by_day)
            if parts:
                print(f"{stream}: {what} {own.select(called).item():.3f}; by day {parts}")


if __name__ == "__main__":
    main()
