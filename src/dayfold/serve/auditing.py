"""The audit: which labels of the images so far are probably wrong, as a table for a person."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dayfold.errors import ImageMissingError, LedgerError
from dayfold.figures import audit
from dayfold.figures.audit import Doubts
from dayfold.learning import calibration, device, features, network
from dayfold.learning.network import Model
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.tables import Doubt
from dayfold.project import params as params_file
from dayfold.project.layout import Project, check_day
from dayfold.proof import absent
from dayfold.serve import days

MANY = 0.1  # part of the labels that are doubted
FEW = 5  # labels that are shown where none is doubted


@dataclass(frozen=True)
class Audit:
    """What an audit found: the `doubts`, most doubtful first, and the `classes` to choose from.

    `judged` labels were looked at, `doubted` of them are counted as wrong, `new` of these arrived
    on `day`; `skipped` says of which images nothing can be said.
    """

    day: str
    classes: tuple[str, ...]
    doubts: list[Doubt]
    judged: int
    doubted: int
    new: int
    skipped: list[str]


def run(project: Project, *, top: int | None) -> Audit:
    """Judge every label by the model in data/ and write data/audit/<day>.csv.

    Held-out images are judged by the model itself, which never learnt from them; training images
    by a logistic regression on the model's features that was fitted without them and without all
    other images of their group. `top` rows, or all doubted ones; where none is, the FEW least
    certain. Decisions that the table has already are kept, in more rows if need be. Raises
    ImageMissingError where no image is here.
    """
    days.check_here(project)
    model = network.load(project.model)
    day = check_day(model.metadata["day"])
    # What was withdrawn on the day that is open now too: the model's day does not know of it.
    withdrawn = list(corrections.gone(project))
    images = manifest.history(project, day).images.filter(~pl.col("image").is_in(withdrawn))
    here = pl.Series([(project.root / path).is_file() for path in images["path"]], dtype=pl.Boolean)
    known = pl.Series(images["label"].is_in(list(model.classes)))
    rows = images.filter(here & known)
    if rows.is_empty():
        raise ImageMissingError(
            f"None of the {len(images)} images is here.",
            mend=absent.command(project, images["day"].unique()),
        )
    found, judged = _doubts(project, model, rows)
    skipped = [
        f"{count} images {why}"
        for count, why in (
            (int((~here).sum()), "are not here (dvc checkout || dvc pull)"),
            (int((here & ~known).sum()), "are of classes that the model has not learnt"),
            (int((~judged).sum()), "are of classes with too few images or groups to judge them by"),
        )
        if count
    ]
    rows = rows.filter(pl.Series(judged))
    new = (rows["day"] == day).to_numpy()
    order = audit.ranking(found, new)[: top or int(found.doubted.sum()) or FEW]
    made = _decided(project, day)
    doubts = [
        Doubt(
            rows["image"][place],
            rows["path"][place],
            rows["label"][place],
            model.classes[found.suggested[place]],
            round(float(found.score[place]), 6),
            made[rows["image"][place]].decision if rows["image"][place] in made else "",
        )
        for place in order.tolist()
    ]
    listed = {doubt.image for doubt in doubts}
    now = dict(images.select("image", "label").iter_rows())
    # What was decided and is not done yet, whatever is thought of it now.
    doubts += [
        doubt
        for image, doubt in made.items()
        if image not in listed and now.get(image, doubt.decision) != doubt.decision
    ]
    tables.write(project.audit(day), Doubt, tables.for_people(doubts))
    both = int((found.doubted & new).sum())
    return Audit(
        day, network.live(model), doubts, len(rows), int(found.doubted.sum()), both, skipped
    )


def _doubts(project: Project, model: Model, rows: pl.DataFrame) -> tuple[Doubts, NDArray[np.bool_]]:
    """The doubts of those rows that can be judged, and which these are."""
    recipe, params = model.metadata["recipe"], params_file.read(project.params)
    machine = device.resolve(
        device="auto", precision=recipe["precision"], threads=params.train.threads
    )
    size = recipe["image_size_px"]
    seen = features.outputs(
        project,
        rows,
        features.body(model, size).to(machine.device),
        size=size,
        machine=machine,
        doing="auditing",
    )
    weight, bias = (model.state[name] for name in network.HEAD)
    logits = (seen @ weight.T + bias).double().numpy()
    labels = np.array([model.classes.index(label) for label in rows["label"]], dtype=np.int64)
    units = rows.select(pl.when(pl.col("group") == "").then("image").otherwise("group"))
    groups = units.to_series().to_numpy()
    trained = (rows["split"] == "train").to_numpy()
    chances = calibration.calibrated(logits, network.temperature(model))
    judged = np.ones(len(rows), dtype=bool)
    fold = audit.folds(labels[trained], groups[trained].tolist(), model.metadata["day"])
    chances[trained], judged[trained] = audit.out_of_sample(
        seen.numpy()[trained], labels[trained], fold, len(model.classes)
    )
    # Each by its own model's usual confidence: the two are not equally sure.
    score, suggested = np.ones(len(rows)), np.zeros(len(rows), dtype=np.int64)
    doubted = np.zeros(len(rows), dtype=bool)
    for part in (trained & judged, ~trained & judged):
        score[part], suggested[part], doubted[part] = audit.doubts(chances[part], labels[part])
    return Doubts(score[judged], suggested[judged], doubted[judged]), judged


def _decided(project: Project, day: str) -> dict[str, Doubt]:
    """The rows in which a person has decided, by image: another audit does not undo them."""
    if not project.audit(day).exists():
        return {}
    name = project.name(project.audit(day))
    try:
        table = tables.read(project.audit(day), Doubt)
    except LedgerError as error:
        raise LedgerError(
            f"{name} is there and cannot be read, so its decisions would be lost: {error.what}",
            mend=f"dayfold relabel --from {name}, or move it away",
        ) from None
    return {row["image"]: Doubt(**row) for row in tables.shown(table) if row["decision"]}


def say(found: Audit, project: Project, show: Callable[[str], None], *, rows: int = 10) -> None:
    """Show the worst of an audit and what to do with its table."""
    if found.doubts and not found.doubted:
        show("No label is doubted. The least certain ones:")
    for doubt in found.doubts[:rows]:
        show(f"{doubt.path}: {doubt.label}, or {doubt.suggested}? ({doubt.score:.3f})")
    if len(found.doubts) > rows:
        show(f"… and {len(found.doubts) - rows} more")
    for line in found.skipped:
        show(line)
    show(
        f"{found.judged} labels judged, {found.doubted} doubted, {found.new} of them of {found.day}"
    )
    if found.doubted > MANY * found.judged:
        show("so many doubts say more of the model than of the labels: train it better first")
    if not found.doubts:
        return
    name = project.name(project.audit(found.day))
    show(f"written: {name}; its column `decision` takes a class, keep or withdraw")
    show(f"next: dayfold relabel --from {name}")
