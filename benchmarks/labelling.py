"""What the queue is worth: a day's first 50 images of it against 50 at random.

    python benchmarks/labelling.py FOLDER [--seeds 3]

On two streams of benchmarks/streams.py, on the day on which a class joins. The model of the day
before puts that day's training images in order, as `dayfold predict --queue` does. The day is then
trained on the first of them, and on as many at random; its validation and test images are the
stream's. Prints ACC after the day, how many of the images are of the new class, and its accuracy: a
line a seed, and the means.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import polars as pl
import streams
from measuring import command_line
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

COUNT = 50  # images that are labelled
BEFORE = {"new classes": 3, "rare class": 2}  # days before the one that is chosen from
# Earlier than in the stream: of the days before, each takes as long.
streams.ALL["rare class"] = replace(
    streams.STREAMS["rare class"],
    comes=lambda digit, day: day == BEFORE["rare class"] if digit == 9 else True,
)
Outcome = tuple[float, int, float]  # ACC, images of the new class, its accuracy


def chosen(history: BacktestDays, params: Params, day: str, parent: Path) -> dict[str, set[str]]:
    """Return the images of a day to train on: the first of the queue, and some at random."""
    project = history.project
    rows = manifest.history(project, day).split("train")
    pool = rows.filter(day=day)

    def looks(images: pl.DataFrame) -> list[str]:
        return [look(Image.open(project.root / path)) for path in images["path"]]

    model = Classifier(network.load(parent / project.parent_model.name), params.predict)
    order = predicting.in_order(
        model.predict(project.root / path for path in pool["path"]),
        looks(pool),
        pool["group"].to_list(),
        looks(rows.filter(pl.col("day") < day)),
        judged=isinstance(model.limit, float),
    )
    ids = pool["image"].to_list()
    keys = draws.uniforms("random", params.seed, ids=ids)
    return {
        "queue": {ids[place] for place in order[:COUNT]},
        "random": {image for _, image in sorted(zip(keys, ids, strict=True))[:COUNT]},
    }


def day_before(history: BacktestDays, params: Params, runs: Path) -> Path:
    """Train the days of a history; the folder of the last model, as a day finds its parent."""
    scratch, kept = Project(runs / "before"), runs / "parent"

    def keep() -> None:  # the run itself leaves no model
        if scratch.parent.exists():
            shutil.copytree(scratch.parent, kept, dirs_exist_ok=True)

    backtest.run_days(history, scratch, params, POLICIES["project"], tick=keep)
    return kept


def trained(folder: Path, stream: str, seed: int) -> dict[str, Outcome]:
    params, number = streams.params(stream, seed), BEFORE[stream]
    whole = streams.build(stream, seed, folder / "streams" / f"{stream}-{seed}")
    runs, day = folder / "runs" / f"{stream}-{seed}", whole.days[number]
    parent = day_before(replace(whole, days=whole.days[:number]), params, runs)
    now = manifest.history(whole.project, day)
    known = now.images.filter(pl.col("day") < day)["label"]
    is_new = ~pl.col("label").is_in(known.unique().implode())
    train = {*now.split("train").filter(day=day)["image"]}
    chain = [
        (one, whole.project.manifest(one).read_bytes())
        for one in (ORIGIN, *whole.days[: number + 1])
    ]
    right = pl.col("images").filter(HIT).sum() / pl.sum("images")
    found = {}
    for name, images in chosen(whole, params, day, parent).items():
        manifests = dict(chain[:1]) | manifest.without(chain[1:], train - images)
        scratch = Project(runs / name)
        mine = replace(whole, days=(day,), parent=parent, manifests=manifests)
        backtest.run_days(mine, scratch, params, POLICIES["project"])
        said = tables.read(scratch.evaluation(day), Evaluation).filter(model=day)
        accuracies = said.group_by("cohort").agg(right=right)["right"]
        labelled = now.images.filter(pl.col("image").is_in(images), is_new)
        own = said.filter(is_new).select(right).item()
        found[name] = accuracies.mean(), len(labelled), own
    return found


def main() -> None:
    options = command_line(__doc__, "folder", seeds=3)
    for stream in BEFORE:
        runs = [trained(options.folder, stream, seed) for seed in range(options.seeds)]
        for name in ("queue", "random"):
            for seed, run in enumerate(runs):
                print(f"{stream}, {name}, seed {seed}:", *(f"{part:.3f}" for part in run[name]))
            parts = zip(*(run[name] for run in runs), strict=True)
            print(f"{stream}, {name}, mean:", *(f"{fmean(part):.3f}" for part in parts), flush=True)


if __name__ == "__main__":
    main()
