"""Yesterday's model, today's and replayed images → today's model.

`learning.fitting.fit` trains; this file prepares its inputs and writes its results. With
`train.processes` above 1, each process decodes all images, and the first one prints and writes.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dayfold import __version__, draws
from dayfold.errors import CycleError, TrainingError
from dayfold.figures import evidence
from dayfold.learning import calibration, checkpoint, device, fitting, frozen, network, parallel
from dayfold.learning.device import Machine
from dayfold.learning.fitting import Fitted
from dayfold.learning.inputs import Activations, Job, Pool
from dayfold.learning.network import Model
from dayfold.learning.parallel import ALONE, Team
from dayfold.learning.speed import SpeedMonitor, usual_speed
from dayfold.ledger import manifest, tables
from dayfold.ledger.image_cache import prune
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import PoolShare, Replayed, TrainingStep
from dayfold.project.console import Ticker, plural
from dayfold.project.files import canonical_json, json_bytes, only_one, sha256_file, write_bytes
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params, Train, check_network

CACHE_BYTES = 8 * 2**30  # size limit of cached activations and squares
VALIDATION_IMAGES = 512  # at most, from earlier days; all of today's are used


def run(project: Project, params: Params) -> list[str]:
    """Read the day's plans, its images and the parent; write model, provenance, training.csv."""
    recipe = params.train
    with only_one(project.trainer_lock, "training"):
        if recipe.processes == 1:
            _train(project, params, ALONE)
        else:
            log = "" if sys.stdout is sys.__stdout__ else str(getattr(sys.stdout, "name", ""))
            words = (str(project.root), canonical_json(params.model_dump()), log)
            parallel.launch(__name__, words, processes=recipe.processes, threads=recipe.threads)
    provenance = json.loads(project.provenance.read_bytes())
    images, validation = provenance["images"], provenance["validation"]
    new = plural(images["trained"] - images["replayed"], "image")
    how = "ridge head" if recipe.frozen_through == "all" else f"{recipe.updates} updates"
    summary = f"{how} on {new} of today and {images['replayed']} replayed"
    if validation["images"]:
        summary += f"; validation: {validation['right']} of {validation['images']} correct"
    return [summary]


def work(root: str, params: str, log: str) -> None:
    """Run one of several training processes; `params` is JSON."""
    chosen = Params.model_validate_json(params)
    with parallel.joined(_machine(chosen.train).device, log) as team:
        _train(Project(Path(root)), chosen, team)


def _machine(recipe: Train) -> Machine:
    given = recipe.model_dump(include={"device", "precision", "threads", "processes"})
    if recipe.frozen_through == "all":
        given["precision"] = "fp32"  # large weights of the ridge head cancel each other
    return device.resolve(**given)


class _Day(NamedTuple):
    """The inputs of a day's training; `pool` and `validation` are (image, path, label, weight).

    The first `today` rows of `pool` arrived today, the others are replayed; `arrived` counts all of
    today's images. `full` is the starting model with a row for every class; `job.start` lacks the
    rows of `retired` classes, which have no images. `sha256` pins the input files.
    `unseen_by_parent` are the positions in `pool` on which the parent's logits may help
    calibration.
    """

    job: Job
    full: Model
    retired: list[str]
    new_classes: list[str]
    pool: pl.DataFrame
    today: int
    arrived: int
    validation: pl.DataFrame
    sha256: dict[str, str]
    unseen_by_parent: NDArray[np.int64]


def _train(project: Project, params: Params, team: Team) -> None:
    day = _day(project, params)
    began = time.monotonic()
    with Ticker("decoding", len(day.pool) + len(day.validation), "images") as ticker:
        read = partial(Pool.read, day.job, project.root, progress=ticker.advance)
        pool, validation = read(day.pool), read(day.validation)
    seconds = {"decode": round(time.monotonic() - began, 1)}
    _print_recipe(params, day, seconds["decode"])
    identity = _identity(day)
    team.check_equal(canonical_json(identity).encode(), "The inputs or the fingerprint")
    checkpoint_file = checkpoint.CheckpointFile(project.checkpoints, identity)
    fitted, steps = _fit(project, day.job, identity, (pool, validation), checkpoint_file, team)
    weights = b"".join(tensor.numpy().tobytes() for tensor in fitted.state.values())
    team.check_equal(weights, "The weights")
    if not team.is_first:
        return
    validated = _write_model(project, day, identity, fitted, (pool, validation))
    tables.write(project.plot("training"), TrainingStep, steps)
    seconds["train"] = round(checkpoint_file.seconds(), 1)
    provenance = {
        "day": params.day,
        "parent": params.parent,
        "classes": list(day.full.classes),
        "new_classes": day.new_classes,
        "retired_classes": day.retired,
        **_counts(day, fitted),
        "validation": validated,
        "sha256": {"model": sha256_file(project.model), **day.sha256},
        "recipe": identity["recipe"],
        "fingerprint": identity["fingerprint"],
        "seconds": seconds,
    }
    write_bytes(project.provenance, json_bytes(provenance))
    checkpoint_file.remove()
    prune((project.activations, project.squares), CACHE_BYTES)


def _day(project: Project, params: Params) -> _Day:
    day, seed, history = params.day, params.seed, manifest.history(project, params.day)
    shares = tables.read(project.shares, PoolShare).filter(pl.col("day") == day)
    arrived = manifest.added(history, day)
    today = arrived.filter(pl.col("split") == "train").join(
        shares.select("label", "weight"), on="label", how="left", maintain_order="left"
    )
    if today["weight"].null_count():
        raise CycleError(f"data/shares.csv lacks classes of {day}.", hint="dvc repro, all stages")
    replayed = tables.read(project.replay, Replayed)
    columns = ["image", "path", "label", "weight"]
    pool = pl.concat([today.select(columns), replayed.select(columns)])
    if pool.is_empty():
        raise CycleError(
            f"There is nothing to train on: no training image on {day} and no replay set.",
            hint="dayfold add more images, or set replay.size in params.yaml",
        )
    # A backtest may start each day from the origin.
    parent = network.load(project.parent_model, (params.parent, ORIGIN))
    classes = history.classes()[day]
    check_network(params, parent.metadata)
    # Every class with images gets a row, even without one in today's pool: otherwise a renamed
    # class would be predicted under neither of its names.
    newcomers = sorted({*classes.live, *replayed["label"]} - set(parent.classes))
    renamed = {later: old for old, later in classes.renamed.items()}
    full = network.grown(parent, newcomers, seed, like=renamed)
    retired = [name for name in full.classes if name in classes.retired]
    start = network.drop_classes(full, retired)
    # The teacher has no rows for new classes; a retired class that came back has its row again.
    teacher = network.drop_classes(network.grown(parent, (), seed, like=renamed), retired)
    recipe = fitting.on_parent(params.train, parent)
    lacking = evidence.unseen(history, start.classes)
    if lacking and recipe.frozen_through == "all":
        raise TrainingError(
            f"train.frozen_through: all needs images of every class; {evidence.no_image(lacking)}.",
            hint="dayfold add images of each, or set train.frozen_through to layer3",
        )
    unseen = tuple(start.classes.index(name) for name in lacking)
    job = Job(start, teacher, recipe, seed, day, _machine(recipe), unseen)
    validation, is_today = history.split("validation"), pl.col("day") == day
    sampled = _sample(validation.filter(~is_today), day, seed)
    validation = pl.concat([validation.filter(is_today), sampled])
    validation = validation.filter(pl.col("label").is_in(start.classes)).with_columns(weight=0.0)
    sha256 = {
        "parent": sha256_file(project.parent_model),
        "manifest": history.sha256,
        "weights": sha256_file(project.weights),
        "replay": sha256_file(project.replay),
        "shares": sha256_file(project.shares),
    }
    # The first evening's model and the origin in a backtest are no basis for calibration.
    is_able = parent.metadata["day"] == params.parent != history.days[0]
    unseen_by_parent = _unseen(today if is_able else today.clear(), history, teacher, day, seed)
    new, counts = list(classes.new), (len(today), len(arrived))
    return _Day(job, full, retired, new, pool, *counts, validation, sha256, unseen_by_parent)


def _unseen(
    today: pl.DataFrame, history: History, teacher: Model, day: str, seed: int
) -> NDArray[np.int64]:
    earlier = history.split("train").filter(pl.col("day") < day)
    is_known = pl.col("label").is_in({*teacher.classes} & {*earlier["label"].unique()})
    is_seen = pl.col("group").is_in({*earlier["group"].unique()} - {""})
    chosen = _sample(today.with_row_index("place").filter(is_known & ~is_seen), day, seed)
    return chosen["place"].to_numpy().astype(np.int64)


def _sample(rows: pl.DataFrame, day: str, seed: int) -> pl.DataFrame:
    images, equal = rows["image"].to_list(), [1.0] * len(rows)
    chosen, _ = draws.priority_sample(images, equal, VALIDATION_IMAGES, "validation", seed, day)
    return rows[np.sort(chosen)]


def _identity(day: _Day) -> dict[str, Any]:
    """Return all that the model's bits depend on; it names the checkpoint too."""
    job, machine = day.job, day.job.machine
    resolved = {"seed": job.seed, "device": machine.device, "precision": machine.precision}
    return {
        "dayfold": __version__,
        "day": job.day,
        "classes": list(job.start.classes),
        "recipe": {**job.recipe.model_dump(), "optimizer": "AdamW", **resolved},
        "sha256": day.sha256,
        "fingerprint": device.fingerprint(machine, job.start.network),
    }


def _fit(
    project: Project,
    job: Job,
    identity: dict[str, Any],
    pools: tuple[Pool, Pool],
    checkpoint_file: checkpoint.CheckpointFile,
    team: Team,
) -> tuple[Fitted, list[TrainingStep]]:
    depth, fingerprint, inputs = job.recipe.frozen_through, identity["fingerprint"], None
    if depth != "none":
        count = sum(len(pool.images) for pool in pools)
        with Ticker("freezing", count, "images") as ticker:
            if depth == "all":
                fitted, step = frozen.fit(
                    job, *pools, project.activations, fingerprint, ticker.advance
                )
                return fitted, [step]
            inputs = Activations(job, project.activations, fingerprint)
            new = inputs.compute(*pools, progress=ticker.advance)
        print(f"frozen    through {depth}: activations of {count} images, {new} new")
    saved = checkpoint_file.load(team)
    monitor = SpeedMonitor(*usual_speed(project, job.start.metadata["day"], identity))
    steps = [*saved.steps] if saved else []
    if saved:
        print(f"resumed   going on from update {len(steps)}, where training was stopped")
    try:
        with _progress(job.recipe, steps, monitor) as report:
            keep = partial(checkpoint_file.save_if_due, steps) if team.is_first else None
            fitted = fitting.fit(
                job, *pools, report=report, inputs=inputs, team=team, saved=saved, keep=keep
            )
    except TrainingError:
        checkpoint_file.remove()  # no training may resume from it
        raise
    return fitted, steps


def _write_model(
    project: Project, day: _Day, identity: dict[str, Any], fitted: Fitted, pools: tuple[Pool, Pool]
) -> dict[str, int]:
    """Calibrate and write the model; return `validation` of provenance.json."""
    logits, (pool, validation) = fitted.logits, pools
    labelled = (logits.double().numpy(), validation.targets.numpy())
    images, right = len(logits), len(logits) - calibration.errors(labelled)
    temperature, problem, added = calibration.fit(labelled, lambda: _parent_logits(day, pool))
    basis = plural(images, "validation image")
    if added:
        basis += f" and {plural(added, 'image')} of {identity['day']} as yesterday's model saw them"
    found = f"Temperature {temperature:g}, of {basis}"
    if problem:
        found = f"Confidence is not calibrated: {calibration.needed(problem)}"
    print(f"Validation: {right} of {images} correct. " * bool(images) + f"{found}.")
    units, unit = day.validation.select(evidence.UNITS).item(), evidence.unit_of(day.validation)
    metadata = {
        "classes": list(day.full.classes),
        "day": identity["day"],
        "network": day.full.network,
        "no_limit": f"too few validation {unit}s ({units})" * evidence.is_too_few(units),
        "recipe": identity["recipe"],
        "sha256": day.sha256,
        "temperature": temperature,
        "not_calibrated": problem,
        "calibrated_on": basis * (not problem),
    }
    state = network.restore_classes(fitted.state, day.full, day.retired)
    probabilities = (logits / temperature).softmax(1)
    distances = fitted.novelty.distance(fitted.features, probabilities).sort().values
    network.save(project.model, state, metadata, replace(fitted.novelty, distances=distances))
    return {"images": images, "right": right, "pooled": added}


def _parent_logits(day: _Day, pool: Pool) -> calibration.Labelled:
    job, chosen = day.job, day.unseen_by_parent
    if not (job.teacher and len(chosen)):
        return np.zeros((0, 0)), np.zeros(0, np.int64)
    net = network.build(job.teacher, job.recipe.image_size_px).to(job.machine.device)
    logits = network.outputs(net, pool.pixels[chosen], job.machine)
    return logits.double().numpy(), pool.targets[chosen].numpy()


def _counts(day: _Day, fitted: Fitted) -> dict[str, Any]:
    by_class = Counter[str]()
    for label, count in zip(day.pool["label"], fitted.drawn, strict=True):
        by_class[label] += int(count)
    return {
        "images": {
            "today": day.arrived,
            "replayed": len(day.pool) - day.today,
            "trained": len(day.pool),
        },
        "draws": {
            "all": int(fitted.drawn.sum()),
            "today": int(fitted.drawn[: day.today].sum()),
            "by_class": dict(sorted(by_class.items())),
        },
    }


def _print_recipe(params: Params, day: _Day, decoded: float) -> None:
    recipe, machine, weights = day.job.recipe, day.job.machine, day.pool["weight"]
    share = float(weights[: day.today].sum()) / float(weights.sum())
    classes = plural(len(day.job.start.classes), "class")
    print(f"from      {params.parent}, {day.job.start.network} with {classes}")
    if day.new_classes:
        print(f"new       {', '.join(day.new_classes)}")
    if day.job.unseen:
        names = [day.job.start.classes[at] for at in day.job.unseen]
        print(f"held      {evidence.no_image(names)}; kept near yesterday's answers")
    if day.retired:
        print(f"retired   {', '.join(day.retired)}: without images now, never predicted")
    print(
        f"images    {day.today} of today ({share:.1%} of the training samples), "
        f"{len(day.pool) - day.today} replayed; decoded in {decoded:.1f} s"
    )
    if recipe.frozen_through == "all":
        print("budget    a ridge head; all layers stay as they are")
    else:
        print(
            f"budget    {recipe.updates} updates of {recipe.batch_size} images, "
            f"AdamW at {recipe.learning_rate:g}, seed {params.seed}"
        )
    several = f"{machine.processes} processes of " if machine.processes > 1 else ""
    print(
        f"machine   {machine.device}, {machine.precision}, {several}{machine.threads} threads, "
        f"{recipe.image_size_px} px",
        flush=True,
    )


@contextmanager
def _progress(
    recipe: Train, steps: list[TrainingStep], monitor: SpeedMonitor
) -> Iterator[Callable[[TrainingStep], None]]:
    updates, began, done = recipe.updates, time.monotonic(), len(steps)
    ends = {updates * epoch // fitting.EPOCHS for epoch in range(1, fitting.EPOCHS + 1)}

    with Ticker("training", updates * recipe.batch_size, "images") as ticker:
        ticker.so_far(done * recipe.batch_size, updates * recipe.batch_size)

        def report(step: TrainingStep) -> None:
            steps.append(step)
            ticker.advance(recipe.batch_size, f"loss {step.loss:.3f}")
            if slow := monitor.update(recipe.batch_size):
                ticker.line(slow, lasts=True)
            if step.step in ends:
                seconds = (time.monotonic() - began) / (step.step - done)
                ticker.line(
                    f"update {step.step}/{updates}  loss {step.loss:.3f}  "
                    f"{recipe.batch_size / seconds:.0f} img/s  "
                    f"{seconds * (updates - step.step):.0f} s left"
                )

        yield report


if __name__ == "__main__":
    work(*sys.argv[1:])
