"""The audit: labels that are probably wrong.

The method is confident learning on out-of-sample predictions (Northcutt, Jiang & Chuang, "Confident
learning: estimating uncertainty in dataset labels", 2021), as cleanlab implements it. A label is
doubted where the model's confidence in another class is above its mean confidence on images of that
class, so a hard class is not suspected as a whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from dayfold import draws
from dayfold.errors import ImageMissingError, LedgerError, ModelError
from dayfold.figures.report import page
from dayfold.figures.report.pictures import thumbnail
from dayfold.learning import calibration, device, network, pixels
from dayfold.learning.network import Model
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.decode import no_warnings
from dayfold.ledger.names import KEEP, WITHDRAW
from dayfold.ledger.tables import Doubt
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import Ticker, first_few
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project, check_day

MANY = 0.1  # share of doubted labels above which the model is to blame
FEW = 5  # labels that are listed if none is doubted
FOLDS = 5
PICTURED = 500  # images on the page at most, so that a browser opens it


@dataclass(frozen=True)
class Audit:
    """The result of an audit: the `doubts`, worst first, and the `classes` to choose from.

    `judged` labels were checked, `doubted` of them count as wrong, `new` of these arrived on `day`.
    `skipped` are sentences on images that could not be judged.
    """

    day: str
    classes: tuple[str, ...]
    doubts: list[Doubt]
    judged: int
    doubted: int
    new: int
    skipped: list[str]


class Doubts(NamedTuple):
    """The verdicts on n labels: `score` float64 [n], 0 (surely wrong) .. 1 (surely right).

    `suggested` int64 [n] is the likeliest other class; `doubted` bool [n] says whether confident
    learning counts the label as wrong.
    """

    score: NDArray[np.float64]
    suggested: NDArray[np.int64]
    doubted: NDArray[np.bool_]


def run(project: Project, *, top: int | None) -> Audit:
    """Judge every label by the model in data/ and write data/audit/<day>.csv.

    Held-out images are judged by the model itself, training images by a logistic regression on its
    features that was fitted without them and their groups. The table has `top` rows, or all doubted
    labels, or the FEW least certain ones where none is doubted. Decisions already in it stay.
    """
    if not project.model.exists() and not vcs.sealed_days(project.root):
        raise ModelError("No day has a model yet.", hint="dayfold status")
    model = network.load(project.model)
    day = check_day(model.metadata["day"])
    # The open day's withdrawals count too, though it comes after the model's day.
    withdrawn = list(corrections.withdrawals(project))
    images = manifest.history(project, day).images.filter(~pl.col("image").is_in(withdrawn))
    here = pl.Series([(project.root / path).is_file() for path in images["path"]], dtype=pl.Boolean)
    known = pl.Series(images["label"].is_in(list(model.classes)))
    rows = images.filter(here & known)
    if rows.is_empty():
        raise ImageMissingError(f"None of the {len(images)} images is here.", hint=vcs.TO_FETCH)
    found, judged = _doubts(project, model, rows)
    rows = rows.filter(pl.Series(judged))
    new = (rows["day"] == day).to_numpy()
    doubts, decided = [], _decided(project, day)
    for place in ranking(found, new)[: top or int(found.doubted.sum()) or FEW].tolist():
        image, path, label = rows.select("image", "path", "label").row(place)
        decision = decided[image].decision if image in decided else ""
        other, score = model.classes[found.suggested[place]], round(float(found.score[place]), 6)
        doubts.append(Doubt(image, path, label, other, score, decision))
    # Keep a person's decisions that were not applied yet.
    label_of = dict(images.select("image", "label").iter_rows())
    listed = {one.image for one in doubts}
    doubts += [
        doubt
        for image, doubt in decided.items()
        if image not in listed and label_of.get(image, doubt.decision) != doubt.decision
    ]
    tables.write(project.audit(day), Doubt, tables.spreadsheet_rows(doubts))
    left_out = (
        (here, f"images that are not here ({vcs.TO_FETCH})"),
        (known | ~here, "images of classes that the model has not learnt"),
        (pl.Series(judged), "images of classes with too few images or patients to judge by"),
    )
    return Audit(
        day,
        model.live,
        doubts,
        judged=len(rows),
        doubted=int(found.doubted.sum()),
        new=int((found.doubted & new).sum()),
        skipped=[f"{why}: {(~kept).sum()}" for kept, why in left_out if not kept.all()],
    )


def _doubts(project: Project, model: Model, rows: pl.DataFrame) -> tuple[Doubts, NDArray[np.bool_]]:
    features = _features(project, model, rows)
    weight, bias = (model.state[name] for name in network.HEAD)
    logits = (features @ weight.T + bias).double().numpy()
    labels = np.array([model.classes.index(label) for label in rows["label"]], dtype=np.int64)
    units = rows.select(pl.when(pl.col("group") == "").then("image").otherwise("group"))
    trained = (rows["split"] == "train").to_numpy()
    names = units.to_series().filter(pl.Series(trained)).to_list()
    fold = folds(labels[trained], names, model.metadata["day"])
    probabilities = calibration.softmax(logits, model.temperature)
    judged = np.ones(len(rows), dtype=bool)
    probabilities[trained], judged[trained] = out_of_sample(
        features.numpy()[trained], labels[trained], fold, len(model.classes)
    )
    # Judged separately, as the network and the regression have different mean confidences.
    score, suggested = np.ones(len(rows)), np.zeros(len(rows), dtype=np.int64)
    doubted = np.zeros(len(rows), dtype=bool)
    for part in (trained & judged, ~trained & judged):
        score[part], suggested[part], doubted[part] = doubts(probabilities[part], labels[part])
    return Doubts(score[judged], suggested[judged], doubted[judged]), judged


def _features(project: Project, model: Model, rows: pl.DataFrame) -> torch.Tensor:
    """Return the inputs of the network's head: float32 [n, d]."""
    recipe, threads = model.metadata["recipe"], params_file.read(project.params).train.threads
    machine = device.resolve(device="auto", precision=recipe["precision"], threads=threads)
    size = recipe["image_size_px"]
    net = network.WithFeatures(network.build(model, size)).to(machine.device)
    with Ticker("auditing", len(rows), "images") as ticker:
        chunks = pixels.load_in_chunks(project.root, rows, size, ticker.advance)
        parts = [net.split(network.outputs(net, chunk, machine))[0] for chunk in chunks]
    return torch.cat(parts) if parts else torch.zeros(0, net.head.in_features)


def folds(labels: NDArray[np.int64], groups: Sequence[str], day: str) -> NDArray[np.int64]:
    """Return the fold of each image, int64 [n]: classes are spread evenly, groups stay together.

    A group counts in the class of its first image. The order is a hash of the groups' names.
    """
    names, first, members = np.unique(
        np.asarray(groups, dtype=np.str_), return_index=True, return_inverse=True
    )
    keys = draws.uniforms("audit", day, ids=names.tolist())
    order = np.lexsort((names, keys, labels[first]))
    dealt = np.empty(len(names), dtype=np.int64)
    dealt[order] = np.arange(len(names)) % FOLDS
    return dealt[members]


def out_of_sample(
    features: NDArray[np.float32], labels: NDArray[np.int64], fold: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each image's probabilities by a logistic regression fitted on the other folds.

    `features` float32 [n, d], `labels` and `fold` int64 [n] → probabilities float64 [n, classes],
    and bool [n]: whether the class of the image is in the other folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    probabilities = np.zeros((len(labels), classes))
    judged = np.zeros(len(labels), dtype=bool)
    for part in np.unique(fold):
        test, train = fold == part, fold != part
        known = np.unique(labels[train])
        if len(known) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        # Waiting BLAS threads spin: beside other work that takes ten times as long.
        with threadpool_limits(1, user_api="blas"):
            model.fit(features[train], labels[train])
        probabilities[np.ix_(test, known)] = model.predict_proba(features[test])
        judged[test] = np.isin(labels[test], known)
    return probabilities, judged


def doubts(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Doubts:
    """Judge labels, int64 [n], by out-of-sample probabilities, float64 [n, classes].

    The score is the margin of the label over the likeliest other class, each less the mean
    probability of images of that class (cleanlab's adjusted `normalized_margin`).
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    suggested = others.argmax(axis=1)
    if not len(labels) or probabilities.shape[1] < 2:
        return Doubts(np.ones(len(labels)), suggested, np.zeros(len(labels), dtype=bool))
    return Doubts(
        get_label_quality_scores(
            labels, probabilities, method="normalized_margin", adjust_pred_probs=True
        ),
        suggested,
        find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1),
    )


def ranking(found: Doubts, new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return positions, the most doubtful first: int64 [n].

    Doubted labels come first, and among them those of `new` images, bool [n].
    """
    old = found.doubted & ~new
    return np.lexsort((found.score, old, ~found.doubted)).astype(np.int64)


def _decided(project: Project, day: str) -> dict[str, Doubt]:
    if not project.audit(day).exists():
        return {}
    try:
        table = tables.read(project.audit(day), Doubt)
    except LedgerError as error:
        name = project.name(project.audit(day))
        raise LedgerError(
            f"{name} cannot be read, so its decisions would be lost: {error.what}",
            hint=f"dayfold relabel --from {name}, or move it away",
        ) from None
    rows = tables.from_spreadsheet_rows(table)
    return {row["image"]: Doubt(**row) for row in rows if row["decision"]}


def summary(audit: Audit, project: Project) -> Iterator[str]:
    name = project.name(project.audit(audit.day))
    if audit.doubts and not audit.doubted:
        yield "No label is doubted. The least certain ones:"
    doubts = [
        f"{one.path}: {one.label}, or {one.suggested}? (score {one.score:.3f})"
        for one in audit.doubts
    ]
    yield from (*first_few(doubts, name), *audit.skipped)
    if doubts:
        yield "score: 0 is surely wrong, 1 is surely right"
    yield f"{audit.judged} labels judged, {audit.doubted} doubted ({audit.new} from {audit.day})"
    if audit.doubted > MANY * audit.judged:
        yield "so many doubts point to the model, not to the labels: train it better first"
    if audit.doubts:
        yield f"written: {name}"
        yield "next: fill in its column `decision` (a class, keep or withdraw)"
        yield f"then: dayfold relabel --from {name}"


def write_page(project: Project, audit: Audit) -> None:
    path = project.audit(audit.day)
    ids, shown = {doubt.path: doubt.image for doubt in audit.doubts}, audit.doubts[:PICTURED]
    with no_warnings():
        pictured = [(doubt, thumbnail(project, ids, doubt.path)) for doubt in shown]
    text = page.filled(
        "audit.html",
        script="audit.js",
        audit=audit,
        pictured=pictured,
        choices=lambda doubt: choices(doubt, audit.classes),
        table=project.name(path),
        file=path.name,
    )
    write_bytes(project.audit_page(audit.day), text.encode())


def choices(doubt: Doubt, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the possible decisions on an image as (decision, text), the likeliest first."""
    rest = [name for name in classes if name not in (doubt.label, doubt.suggested)]
    found = [
        ("", "undecided"),
        (doubt.suggested, f"it is {doubt.suggested}"),
        (KEEP, f"keep {doubt.label}"),
        *((name, f"it is {name}") for name in rest),
        (WITHDRAW, "withdraw the image"),
    ]
    return found + [(doubt.decision, doubt.decision)] * (doubt.decision not in dict(found))
