"""evaluate: today's model on every held-out image, and yesterday's on today's."""

import math
import time
from collections.abc import Sequence
from functools import partial

import polars as pl

from dayfold.figures import evidence, metrics
from dayfold.learning import device, network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import ClassScore, Evaluation, Flip, Prediction
from dayfold.project.console import Ticker, first_few, plural
from dayfold.project.layout import Project
from dayfold.project.params import Params


def predict(
    project: Project,
    models: Sequence[Model],
    rows: pl.DataFrame,
    *,
    machine: Machine,
    ticker: Ticker,
) -> list[pl.DataFrame]:
    """Return, a model, the rows with `predicted` and `confidence`; each image is decoded once."""
    size = models[0].metadata["recipe"]["image_size_px"]
    nets = [network.build(model, size).to(machine.device) for model in models]
    said: list[list[tuple[str, float]]] = [[] for _ in models]
    for images in pixels.in_chunks(project.root, rows, size, ticker.advance):
        for model, net, answers in zip(models, nets, said, strict=True):
            best = network.outputs(net, images, machine).softmax(1).max(dim=1)
            answers += [
                (model.classes[position], confidence)
                for position, confidence in zip(
                    best.indices.tolist(), best.values.tolist(), strict=True
                )
            ]
    return [
        rows.with_columns(
            predicted=pl.Series([name for name, _ in answers], dtype=pl.String),
            confidence=pl.Series([confidence for _, confidence in answers], dtype=pl.Float64),
        )
        for answers in said
    ]


def counted(
    predictions: pl.DataFrame, *, model: str, parent: dict[str, str] | None
) -> list[Evaluation]:
    """Count one model's test predictions by cohort, label, predicted class and bin, sorted.

    `parent` maps every image to what yesterday's model says of it; whether that is right is judged
    by today's labels, which may have been corrected since.
    """
    cells: dict[tuple[str, str, str, int], list[tuple[str, float]]] = {}
    columns = ("day", "label", "predicted", "image", "confidence")
    test = predictions.filter(pl.col("split") == "test").select(columns)
    for cohort, label, predicted, image, confidence in test.iter_rows():
        tenth = min(int(confidence * tables.BINS), tables.BINS - 1)
        cells.setdefault((cohort, label, predicted, tenth), []).append((image, confidence))
    return [
        Evaluation(
            model,
            *cell,
            images=len(members),
            # fsum: exact, so that no order of summation shows.
            confidence=math.fsum(confidence for _, confidence in members) / len(members),
            parent_correct=None
            if parent is None
            else sum(parent[image] == cell[1] for image, _ in members),
        )
        for cell, members in sorted(cells.items())
    ]


def negative_flips(predictions: pl.DataFrame, parent: dict[str, str] | None) -> list[Flip]:
    """Return the test images that yesterday's model had right and today's has wrong, by path.

    `predictions` and `parent` as in `counted`, with a column `path`; none without a parent.
    """
    columns = ("path", "label", "predicted", "confidence", "image")
    wrong = predictions.filter(
        (pl.col("split") == "test") & (pl.col("predicted") != pl.col("label"))
    )
    return [
        Flip(path, label, parent[image], predicted, confidence)
        for path, label, predicted, confidence, image in wrong.select(columns)
        .sort("path")
        .iter_rows()
        if parent is not None and parent[image] == label
    ]


def run(project: Project, params: Params) -> list[str]:
    """Predict the held-out images; write predictions, evaluation, classification and flips.

    Returns what became of the answers since yesterday.
    """
    day = params.day
    model = network.load(project.model)
    recipe = model.metadata["recipe"]
    machine = device.resolve(
        device=recipe["device"], precision=recipe["precision"], threads=recipe["threads"]
    )
    history = manifest.history(project, day)
    held = evidence.sample(history.split(*manifest.HELD_OUT), params.evaluate.max_per_cohort)
    parent = network.load(project.parent_model)
    # What yesterday's model calls by a class's old name it calls by its new one.
    renamed = pl.col("predicted").replace(history.classes()[day].renamed)
    before = tables.read(project.parent_predictions, Prediction).with_columns(renamed)
    # Today's images; old ones too, where a sample has grown.
    is_new = ~pl.col("image").is_in(before["image"].implode())
    ask = partial(predict, project, machine=machine)
    began = time.monotonic()
    with Ticker("evaluating", len(held), "images") as ticker:
        [mine] = ask([model], held.filter(~is_new), ticker=ticker)
        both = [model, parent] if parent.classes else [model]
        mine_new, *theirs = ask(both, held.filter(is_new), ticker=ticker)
    seconds = time.monotonic() - began
    mine = pl.concat([mine, mine_new]).sort("day", "path")
    theirs = [table.with_columns(renamed) for table in theirs]
    said = [table.select("image", "predicted") for table in (before, *theirs)]
    before_by_image = dict(pl.concat(said).iter_rows()) if theirs else None
    counts = [counted(mine, model=day, parent=before_by_image)]
    counts += [
        counted(table.filter(pl.col("day") == day), model=params.parent, parent=None)
        for table in theirs
    ]
    tables.write(project.predictions, Prediction, mine.select(Prediction._fields).iter_rows())
    tables.write(project.evaluation(day), Evaluation, [row for rows in counts for row in rows])
    table = pl.DataFrame(counts[0], schema=tables.schema(Evaluation), orient="row")
    scores = metrics.class_scores(table)
    tables.write(
        project.plot("classification"), ClassScore, scores.select(ClassScore._fields).iter_rows()
    )
    flips = negative_flips(mine, before_by_image)
    tables.write(project.plot("flips"), Flip, flips)
    count = metrics.flips(table)
    summary = plural(int(table["images"].sum()), "test image")
    if before_by_image is not None:
        summary += f": {count.negative} newly wrong, {count.positive} newly right"
    print(summary)
    wrong = [f"{one.path}: {one.predicted} ({one.confidence:.2f}), is {one.label}" for one in flips]
    for line in first_few(wrong, project.name(project.plot("flips"))):
        print(f"  {line}")
    print(f"{len(held)} held-out images in {seconds:.1f} s, {len(held) / seconds:.0f} img/s")
    return [summary]
