"""What the queue is worth: a day's first 50 images of it against 50 at random.

    python benchmarks/labelling.py FOLDER [--seeds 3] [--images 50] [--stream NAME …]

On two streams of benchmarks/streams.py, on the day on which a class joins. The model of the day
before puts that day's training images in order, as `dayfold predict --queue` does. The day is then
trained on the first of them, and on as many at random; its validation and test images are the
stream's. Prints ACC after the day, how many of the images are of the new class, and its accuracy: a
line a seed, and the means.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import polars as pl
import streams
from PIL import Image

from dayfold import backtest, draws
from dayfold.backtest import POLICIES, BacktestDays
from dayfold.figures.counts import HIT
from dayfold.learning import network
from dayfold.ledger import manifest, tables
from dayfold.ledger.intake.workers import look
from dayfold.ledger.tables import Evaluation
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params
from dayfold.serve import predicting
from dayfold.serve.model import Classifier

WHEN = {"new classes": 3, "rare class": 2}  # days before the one that is chosen from
RARE = replace(  # earlier than in the stream: of the days before, each takes as long
    streams.STREAMS["rare class"],
    comes=lambda digit, day: day == WHEN["rare class"] if digit == 9 else True,
)
POLICY = POLICIES["project"]


def chosen(
    history: BacktestDays, params: Params, day: str, parent: Path, count: int
) -> dict[str, set[str]]:
    """Return the images of a day to train on: the first of the queue, and some at random."""
    project = history.project
    rows = manifest.history(project, day).split("train")
    pool = rows.filter(day=day)

    def looks(paths: pl.Series) -> list[str]:
        return [look(Image.open(project.root / path)) for path in paths]

    model = Classifier(network.load(parent / project.parent_model.name), params.predict)
    answers = model.predict(project.root / path for path in pool["path"])
    order = predicting.in_order(
        answers,
        looks(pool["path"]),
        pool["group"].to_list(),
        looks(rows.filter(pl.col("day") < day)["path"]),
        judged=isinstance(model.limit, float),
    )
    ids = pool["image"].to_list()
    keys = draws.uniforms("random", params.seed, ids=ids)
    return {
        "queue": {ids[place] for place in order[:count]},
        "random": {image for _, image in sorted(zip(keys, ids, strict=True))[:count]},
    }


def day_before(history: BacktestDays, params: Params, number: int, runs: Path) -> Path:
    """Train the days before; the folder of the last one's model, as a day finds its parent."""
    scratch, kept = Project(runs / "before"), runs / "parent"

    def keep() -> None:  # the run itself leaves no model
        if scratch.parent.exists():
            shutil.copytree(scratch.parent, kept, dirs_exist_ok=True)

    earlier = replace(history, days=streams.DAYS[:number])
    backtest.run_days(earlier, scratch, params, POLICY, tick=keep)
    return kept


def trained(
    folder: Path, stream: str, seed: int, count: int
) -> dict[str, tuple[float, int, float]]:
    """Train a day on each choice: ACC, images of the new class, and its accuracy."""
    params, number = streams.params(stream, seed), WHEN[stream]
    history = streams.build(stream, params, folder / "streams" / f"{stream}-{seed}")
    runs, day = folder / "runs" / f"{stream}-{count}-{seed}", streams.DAYS[number]
    parent = day_before(history, params, number, runs)
    now = manifest.history(history.project, day)
    known = now.images.filter(pl.col("day") < day)
    new = sorted({*now.images["label"]} - {*known["label"]})
    train = {*now.split("train").filter(day=day)["image"]}
    days = [ORIGIN, *streams.DAYS[: number + 1]]
    chain = [(one, history.project.manifest(one).read_bytes()) for one in days]
    found = {}
    for name, images in chosen(history, params, day, parent, count).items():
        manifests = dict(chain[:1]) | manifest.without(chain[1:], train - images)
        scratch = Project(runs / name)
        mine = replace(history, days=(day,), parent=parent, manifests=manifests)
        backtest.run_days(mine, scratch, params, POLICY)
        said = tables.read(scratch.evaluation(day), Evaluation).filter(model=day)
        right = pl.col("images").filter(HIT).sum() / pl.sum("images")
        cohorts = said.group_by("cohort").agg(right=right)["right"]
        own = said.filter(pl.col("label").is_in(new)).select(right=right)["right"]
        labelled = now.images.filter(pl.col("image").is_in(images), pl.col("label").is_in(new))
        found[name] = float(cohorts.mean()), len(labelled), own.item()
    return found


def main() -> None:
    """Print a line a seed and the means of each stream."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--stream", action="append", choices=WHEN)
    options = parser.parse_args()
    streams.ALL["rare class"] = RARE
    for stream in options.stream or WHEN:
        runs = []
        for seed in range(options.seeds):
            runs.append(trained(options.folder, stream, seed, options.images))
            print(f"{stream}, seed {seed}: {runs[-1]}", flush=True)
        for name in runs[0]:
            parts = zip(*(run[name] for run in runs), strict=True)
            means = [f"{fmean(part):.3f}" for part in parts]
            print(stream, name, *means, flush=True)


if __name__ == "__main__":
    main()
