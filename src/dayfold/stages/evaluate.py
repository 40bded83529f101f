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

MOST_UNLIKE = 24  # images of today in unlike.csv


def predict(
    project: Project,
    models: Sequence[Model],
    rows: pl.DataFrame,
    *,
    machine: Machine,
    ticker: Ticker,
) -> list[pl.DataFrame]:
    """Return a table for each model: the rows with `predicted`, `confidence`, `distance`.

    Each image is decoded once. The distance is empty for a model without a novelty detector.
    """
    size = models[0].metadata["recipe"]["image_size_px"]
    nets = [network.WithFeatures(network.build(model, size)).to(machine.device) for model in models]
    predicted: list[list[tuple[str, float, float | None]]] = [[] for _ in models]
    for images in pixels.load_in_chunks(project.root, rows, size, ticker.advance):
        for model, net, answers in zip(models, nets, predicted, strict=True):
            features, logits = net.split(network.outputs(net, images, machine))
            best = logits.softmax(1).max(dim=1)
            distances: list[float | None] = [None] * len(logits)
            if model.novelty:
                calibrated = (logits / model.temperature).softmax(1)
                distances = model.novelty.distance(features, calibrated).tolist()
            names = [model.classes[position] for position in best.indices.tolist()]
            answers += zip(names, best.values.tolist(), distances, strict=True)
    schema = {"predicted": pl.String, "confidence": pl.Float64, "distance": pl.Float64}
    return [rows.hstack(pl.DataFrame(one, schema=schema, orient="row")) for one in predicted]


def count_cells(
    predictions: pl.DataFrame, *, model: str, parent: dict[str, str] | None
) -> list[Evaluation]:
    """Count one model's test predictions by cohort, label, predicted class and bin, sorted.

    `parent` maps every image to the prediction of yesterday's model, which is compared with today's
    labels.
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
            # fsum is exact: the order of summation does not matter.
            confidence=math.fsum(confidence for _, confidence in members) / len(members),
            parent_correct=None
            if parent is None
            else sum(parent[image] == cell[1] for image, _ in members),
        )
        for cell, members in sorted(cells.items())
    ]


def negative_flips(predictions: pl.DataFrame, parent: dict[str, str] | None) -> list[Flip]:
    """Return the test images that yesterday's model had right and today's has wrong, by path."""
    columns = ("path", "label", "predicted", "confidence", "image")
    wrong = predictions.filter(pl.col("predicted") != pl.col("label"), split="test").sort("path")
    return [
        Flip(path, label, parent[image], predicted, confidence)
        for path, label, predicted, confidence, image in wrong.select(columns).iter_rows()
        if parent is not None and parent[image] == label
    ]


def count_unknown(asked: pl.DataFrame, seen: Collection[str], limit: float | None) -> list[Unknown]:
    """Count the images that yesterday's model called unknown: known classes first, then new ones.

    `asked` has the columns label, group, distance. `seen` are the classes that the model has
    learnt. An image is unknown if its distance is above `limit`.
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

    Ties count half (Mann & Whitney 1947). None if one of them is empty.
    """
    ranked = near.sort()
    if not len(far) * len(near):
        return None
    below, reached = (ranked.search_sorted(far, side) for side in ("left", "right"))
    return float((below + reached).sum()) / (2 * len(far) * len(near))


def run(project: Project, params: Params) -> list[str]:
    """Predict the held-out images; write predictions, evaluation, classification and flips.

    Yesterday's model predicts all of today's images too, for `unknown` and `unlike`. Returns a line
    on what changed since yesterday.
    """
    day = params.day
    model = network.load(project.model, (day,))
    recipe = model.metadata["recipe"]
    machine = device.resolve(**{key: recipe[key] for key in ("device", "precision", "threads")})
    history = manifest.history(project, day)
    held_out = evidence.sample(history.split(*manifest.HELD_OUT), params.evaluate.max_per_cohort)
    parent = network.load(project.parent_model)
    # Yesterday's model predicts a renamed class by its old name.
    renamed = pl.col("predicted").replace(history.classes()[day].renamed)
    yesterday = tables.read(project.parent_predictions, Prediction).with_columns(renamed)
    # These are today's images, and old ones where a sample has grown.
    is_new = ~pl.col("image").is_in(yesterday["image"].implode())
    ask = partial(predict, project, machine=machine)
    began = time.monotonic()
    training = evidence.sample(manifest.added(history, day), params.evaluate.max_per_cohort)
    training = training.filter(split="train") if parent.novelty else training.clear()
    asked = len(held_out) + len(training)
    with Ticker("evaluating", asked, "images") as ticker:
        [old] = ask([model], held_out.filter(~is_new), ticker=ticker)
        models = [model, parent] if parent.classes else [model]
        new, *by_parent = ask(models, held_out.filter(is_new), ticker=ticker)
        all_by_parent = []
        if parent.novelty:
            all_by_parent = [*by_parent, *ask([parent], training, ticker=ticker)]
    seconds = time.monotonic() - began
    predictions = pl.concat([old, new]).sort("day", "path")
    by_parent = [table.with_columns(renamed) for table in by_parent]
    pairs = [table.select("image", "predicted") for table in (yesterday, *by_parent)]
    parent_of = dict(pl.concat(pairs).iter_rows()) if by_parent else None
    counts = count_cells(predictions, model=day, parent=parent_of)
    forward = [table.filter(pl.col("day") == day) for table in by_parent]
    rows = [row for one in forward for row in count_cells(one, model=params.parent, parent=None)]
    listed = predictions.select(Prediction._fields)
    tables.write(project.predictions, Prediction, listed.iter_rows())
    tables.write(project.evaluation(day), Evaluation, [*counts, *rows])
    unlike = _write_unknown(project, params, history, parent, all_by_parent)
    table = pl.DataFrame(counts, schema=tables.schema(Evaluation), orient="row")
    scores = metrics.class_scores(table).select(ClassScore._fields)
    tables.write(project.plot("classification"), ClassScore, scores.iter_rows())
    flips = negative_flips(predictions, parent_of)
    tables.write(project.plot("flips"), Flip, flips)
    summary = plural(int(table["images"].sum()), "test image")
    if parent_of is not None:
        count = metrics.flips(table)
        flipped = f"{count.negative} newly wrong, {count.positive} newly right"
        summary += f", today's included: {flipped}"
    print(summary)
    wrong = [f"{one.path}: {one.predicted} ({one.confidence:.2f}), is {one.label}" for one in flips]
    for line in first_few(wrong, project.name(project.plot("flips"))):
        print(f"  {line}")
    print(f"{asked} images in {seconds:.1f} s, {asked / seconds:.0f} img/s")
    return ["; ".join([summary, *unlike])]


def _write_unknown(
    project: Project, params: Params, history: History, parent: Model, asked: list[pl.DataFrame]
) -> list[str]:
    day, limit = params.day, parent.limit(params.predict.known_share)
    renamed = history.classes()[day].renamed
    learnt = {renamed.get(name, name) for name in parent.classes_with_means}
    earlier = history.images.filter((pl.col("day") < day) & (pl.col("split") == "train"))
    patients = earlier.filter(pl.col("group") != "")["group"].unique().implode()
    counts, farthest = [], []
    if asked:
        rows = pl.concat(asked).filter(pl.col("day") == day)
        # Training images of known patients are left out: the model has learnt from their others.
        is_first = ~pl.col("label").is_in(list(learnt)) | ~pl.col("group").is_in(patients)
        bound = limit if isinstance(limit, float) else None
        counts = count_unknown(rows.filter(is_first | (pl.col("split") != "train")), learnt, bound)
        columns = pl.col("predicted").replace(renamed), pl.col("distance")
        listed = rows.sort("distance", "path", descending=[True, False]).head(MOST_UNLIKE)
        farthest = [Unlike(*row) for row in listed.select("path", "label", *columns).iter_rows()]
    tables.write(project.unknown(day), Unknown, counts)
    tables.write(project.plot("unlike"), Unlike, farthest)
    parts = [
        f"{one.unknown} of {one.images} images of {'new' if one.new else 'known'} classes"
        for one in counts
        if one.unknown is not None and not one.label
    ]
    return [f"unknown to yesterday's model: {', '.join(parts)}"] if parts else []
