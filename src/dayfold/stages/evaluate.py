"""Today's model on held-out images, yesterday's on today's."""

import math
import time
from collections.abc import Collection, Sequence
from functools import partial

import polars as pl

from dayfold.figures import evidence, metrics
from dayfold.learning import device, network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import ClassScore, Evaluation, Flip, Prediction, Unknown, Unlike
from dayfold.project.console import Ticker, first_few, plural
from dayfold.project.layout import Project
from dayfold.project.params import Params

MOST_UNLIKE = 24  # images of today that are listed


def predict(
    project: Project,
    models: Sequence[Model],
    rows: pl.DataFrame,
    *,
    machine: Machine,
    ticker: Ticker,
) -> list[pl.DataFrame]:
    """Return, a model, the rows with `predicted`, `confidence`, `distance`.

    Each image is decoded once. The distance is empty where the model has no means of its classes.
    """
    size = models[0].metadata["recipe"]["image_size_px"]
    nets = [network.WithFeatures(network.build(model, size)).to(machine.device) for model in models]
    said: list[list[tuple[str, float, float | None]]] = [[] for _ in models]
    for images in pixels.in_chunks(project.root, rows, size, ticker.advance):
        for model, net, answers in zip(models, nets, said, strict=True):
            made = network.outputs(net, images, machine)
            features, logits = net.split(made)
            best, known = logits.softmax(1).max(dim=1), model.novelty
            chances = (logits / model.temperature).softmax(1)
            far = known.distance(features, chances).tolist() if known else [None] * len(made)
            names = [model.classes[position] for position in best.indices.tolist()]
            answers += zip(names, best.values.tolist(), far, strict=True)
    schema = {"predicted": pl.String, "confidence": pl.Float64, "distance": pl.Float64}
    return [rows.hstack(pl.DataFrame(answers, schema=schema, orient="row")) for answers in said]


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
    wrong = predictions.filter(pl.col("predicted") != pl.col("label"), split="test").sort("path")
    return [
        Flip(path, label, parent[image], predicted, confidence)
        for path, label, predicted, confidence, image in wrong.select(columns).iter_rows()
        if parent is not None and parent[image] == label
    ]


def unknown(asked: pl.DataFrame, seen: Collection[str], limit: float | None) -> list[Unknown]:
    """Count the images that yesterday's model called unknown, known classes first, then by label.

    `asked` has columns label, group, distance; `seen` are the classes that the model had means of,
    `limit` the distance above which an image was unknown.
    """
    found = []
    is_new = ~pl.col("label").is_in(list(seen))
    known = asked.filter(~is_new)
    for new, rows in ((0, known), (1, asked.filter(is_new))):
        parts = [(str(key[0]), part) for key, part in sorted(rows.group_by("label"))]
        for label, part in [("", rows), *parts] if len(rows) else []:
            far = None if limit is None else int((part["distance"] > limit).sum())
            area = auroc(part["distance"], known["distance"]) if new else None
            units = part.select(evidence.UNITS).item()
            found.append(Unknown(label, new, len(part), units, far, area))
    return found


def auroc(far: pl.Series, near: pl.Series) -> float | None:
    """Return the area under the ROC curve: how often one of `far` is above one of `near`, 0..1.

    Equal ones count half (Mann & Whitney 1947). None where one of them is empty.
    """
    ranked = near.sort()
    if not len(far) * len(near):
        return None
    below, reached = (ranked.search_sorted(far, side) for side in ("left", "right"))
    return float((below + reached).sum()) / (2 * len(far) * len(near))


def run(project: Project, params: Params) -> list[str]:
    """Predict the held-out images; write predictions, evaluation, classification and flips.

    Yesterday's model is asked about all of today's images, which it has never seen, for unknown and
    unlike. Returns what became of the answers since yesterday.
    """
    day = params.day
    model = network.load(project.model, (day,))
    recipe = model.metadata["recipe"]
    machine = device.resolve(**{key: recipe[key] for key in ("device", "precision", "threads")})
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
    trained = evidence.sample(manifest.added(history, day), params.evaluate.max_per_cohort)
    trained = trained.filter(split="train") if parent.novelty else trained.clear()
    asked = len(held) + len(trained)
    with Ticker("evaluating", asked, "images") as ticker:
        [mine] = ask([model], held.filter(~is_new), ticker=ticker)
        both = [model, parent] if parent.classes else [model]
        mine_new, *theirs = ask(both, held.filter(is_new), ticker=ticker)
        first = [*theirs, *ask([parent], trained, ticker=ticker)] if parent.novelty else []
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
    unlike = _unlike(project, params, history, parent, first)
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
    print(f"{asked} images in {seconds:.1f} s, {asked / seconds:.0f} img/s")
    return ["; ".join([summary, *unlike])]


def _unlike(
    project: Project, params: Params, history: History, parent: Model, asked: list[pl.DataFrame]
) -> list[str]:
    day, limit = params.day, parent.limit(params.predict.known_share)
    renamed = history.classes()[day].renamed
    seen = {renamed.get(name, name) for name in parent.classes_with_means}
    earlier = history.images.filter((pl.col("day") < day) & (pl.col("split") == "train"))
    learnt = earlier.filter(pl.col("group") != "")["group"].unique().implode()
    rows = pl.concat([table.filter(pl.col("day") == day) for table in asked]) if asked else None
    counts, far = [], []
    if rows is not None:
        # Other images of a patient that it has learnt from are no news to it.
        is_news = ~pl.col("label").is_in(list(seen)) | ~pl.col("group").is_in(learnt)
        bound = limit if isinstance(limit, float) else None
        counts = unknown(rows.filter(is_news | (pl.col("split") != "train")), seen, bound)
        columns = pl.col("predicted").replace(renamed), pl.col("distance")
        listed = rows.sort("distance", "path", descending=[True, False]).head(MOST_UNLIKE)
        far = [Unlike(*row) for row in listed.select("path", "label", *columns).iter_rows()]
    tables.write(project.unknown(day), Unknown, counts)
    tables.write(project.plot("unlike"), Unlike, far)
    said = [
        f"{one.unknown} of {one.images} images of {'new' if one.new else 'known'} classes"
        for one in counts
        if one.unknown is not None and not one.label
    ]
    return [f"unknown to yesterday's model: {', '.join(said)}"] if said else []
