"""Yesterday's model, today's and replayed images → today's model.

What is done is `learning.fitting.fit`; here is what goes into it and comes out of it. Where
`train.processes` is above 1, each process reads and decodes the whole pool, and the first one
speaks and writes.
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
from dayfold.learning.speed import Pace, usual_speed
from dayfold.ledger import manifest, tables
from dayfold.ledger.kept import prune
from dayfold.ledger.tables import PoolShare, Replayed, TrainingStep
from dayfold.project.console import Ticker, plural
from dayfold.project.files import canonical_json, json_bytes, only_one, sha256_file, write_bytes
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params, Train, check_network

KEPT_BYTES = 8 * 2**30  # of activations and squares
VALIDATION_IMAGES = 512  # at most, of earlier days; today's all count


def run(project: Project, params: Params) -> list[str]:
    """Read the day's plans, its images and the parent; write model, provenance, training.csv.

    Returns how much was trained, and how much of the validation images is right.
    """
    recipe = params.train
    with only_one(project.trainer_lock, "training"):
        if recipe.processes == 1:
            _train(project, params, ALONE)
        else:
            log = "" if sys.stdout is sys.__stdout__ else str(getattr(sys.stdout, "name", ""))
            words = (str(project.root), canonical_json(params.model_dump()), log)
            parallel.launch(__name__, words, processes=recipe.processes, threads=recipe.threads)
    made = json.loads(project.provenance.read_bytes())
    images, held = made["images"], made["validation"]
    new = plural(images["trained"] - images["replayed"], "image")
    how = "ridge head" if recipe.frozen_through == "all" else f"{recipe.updates} updates"
    said = f"{how} on {new} of today and {images['replayed']} replayed"
    right = f"; validation: {held['right']} of {held['images']} correct" * bool(held["images"])
    return [said + right]


def work(root: str, params: str, log: str) -> None:
    """Be one of several processes that train: with the project's folder and params as JSON."""
    chosen = Params.model_validate_json(params)
    with parallel.joined(_machine(chosen.train).device, log) as team:
        _train(Project(Path(root)), chosen, team)


def _machine(recipe: Train) -> Machine:
    given = recipe.model_dump(include={"device", "precision", "threads", "processes"})
    if recipe.frozen_through == "all":
        given["precision"] = "fp32"  # the ridge head's large weights cancel each other
    return device.resolve(**given)


class _Day(NamedTuple):
    """What is trained: the job, and rows (image, path, label, weight) to learn from or validate on.

    The first `today` rows of `pool` arrived today, the others are replayed; `arrived` counts all of
    today's images. `whole` has a row for every class, `job.start` lacks those of the `retired`
    ones, for which no image speaks. `pins` are sha256 sums, `news` places in `pool` of images that
    yesterday's model is asked about.
    """

    job: Job
    whole: Model
    retired: list[str]
    new: list[str]
    pool: pl.DataFrame
    today: int
    arrived: int
    held: pl.DataFrame
    pins: dict[str, str]
    news: NDArray[np.int64]


def _train(project: Project, params: Params, team: Team) -> None:
    day = _day(project, params)
    began = time.monotonic()
    with Ticker("decoding", len(day.pool) + len(day.held), "images") as ticker:
        read = partial(Pool.read, day.job, project.root, progress=ticker.advance)
        pool, validation = read(day.pool), read(day.held)
    seconds = {"decode": round(time.monotonic() - began, 1)}
    _print_recipe(params, day, seconds["decode"])
    facts = _facts(day)
    team.agree(canonical_json(facts).encode(), "The inputs or the fingerprint")
    keeper = checkpoint.Keeper(project.checkpoints, facts)
    fitted, steps = _fitted(project, day.job, facts, (pool, validation), keeper, team)
    weights = b"".join(tensor.numpy().tobytes() for tensor in fitted.state.values())
    team.agree(weights, "The weights")
    if not team.leads:
        return
    validated = _write_model(project, day, facts, fitted, (pool, validation))
    tables.write(project.plot("training"), TrainingStep, steps)
    seconds["train"] = round(keeper.seconds(), 1)
    provenance = {
        "day": params.day,
        "parent": params.parent,
        "classes": list(day.whole.classes),
        "new_classes": day.new,
        "retired_classes": day.retired,
        **_drawn(day, fitted),
        "validation": validated,
        "sha256": {"model": sha256_file(project.model), **day.pins},
        "recipe": facts["recipe"],
        "fingerprint": facts["fingerprint"],
        "seconds": seconds,
    }
    write_bytes(project.provenance, json_bytes(provenance))
    keeper.remove()
    prune((project.activations, project.squares), KEPT_BYTES)


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
    # Of the origin in a backtest that begins with it each day.
    parent = network.load(project.parent_model, (params.parent, ORIGIN))
    classes = history.classes()[day]
    check_network(params, parent.metadata)
    # Of every class with images, also where none of them is in today's pool: a class that was
    # renamed would otherwise be answered by neither of its names.
    newcomers = sorted({*classes.live, *replayed["label"]} - set(parent.classes))
    renamed = {later: old for old, later in classes.renamed.items()}
    whole = network.grown(parent, newcomers, seed, like=renamed)
    retired = [name for name in whole.classes if name in classes.retired]
    start = network.without(whole, retired)
    # Grown by nothing: a class that came back is asked about again.
    teacher = network.without(network.grown(parent, (), seed, like=renamed), retired)
    recipe = fitting.on_parent(params.train, parent)
    lacking = evidence.unseen(history, start.classes)
    if lacking and recipe.frozen_through == "all":
        raise TrainingError(
            f"train.frozen_through: all makes a head from images; {evidence.no_image(lacking)}.",
            hint="dayfold add images of each, or set train.frozen_through to layer3",
        )
    unseen = tuple(start.classes.index(name) for name in lacking)
    job = Job(start, teacher, recipe, seed, day, _machine(recipe), unseen)
    held, is_own = history.split("validation"), pl.col("day") == day
    held = pl.concat([held.filter(is_own), _some(held.filter(~is_own), day, seed)])
    held = held.filter(pl.col("label").is_in(start.classes))
    pins = {
        "parent": sha256_file(project.parent_model),
        "manifest": history.sha256,
        "weights": sha256_file(project.weights),
        "replay": sha256_file(project.replay),
        "shares": sha256_file(project.shares),
    }
    new, counts = list(classes.new), (len(today), len(arrived))
    earlier = history.split("train").filter(pl.col("day") < day)
    is_known = pl.col("label").is_in({*teacher.classes} & {*earlier["label"]})
    is_seen = pl.col("group").is_in({*earlier["group"]} - {""})
    # Not the first evening's model, and not the origin where a backtest begins with it each day.
    is_able = parent.metadata["day"] == params.parent != history.days[0]
    asked = today.with_row_index("place").filter(is_known & ~is_seen & is_able)
    news = _some(asked, day, seed)["place"].to_numpy().astype(np.int64)
    return _Day(job, whole, retired, new, pool, *counts, held.with_columns(weight=0.0), pins, news)


def _some(rows: pl.DataFrame, day: str, seed: int) -> pl.DataFrame:
    images, equal = rows["image"].to_list(), [1.0] * len(rows)
    chosen, _ = draws.priority_sample(images, equal, VALIDATION_IMAGES, "validation", seed, day)
    return rows[np.sort(chosen)]


def _facts(day: _Day) -> dict[str, Any]:
    """All that the model's bits depend on: it names the checkpoint, and processes compare it."""
    job, machine = day.job, day.job.machine
    resolved = {"seed": job.seed, "device": machine.device, "precision": machine.precision}
    return {
        "dayfold": __version__,
        "day": job.day,
        "classes": list(job.start.classes),
        "recipe": {**job.recipe.model_dump(), "optimizer": "AdamW", **resolved},
        "sha256": day.pins,
        "fingerprint": device.fingerprint(machine, job.start.network),
    }


def _fitted(
    project: Project,
    job: Job,
    facts: dict[str, Any],
    pools: tuple[Pool, Pool],
    keeper: checkpoint.Keeper,
    team: Team,
) -> tuple[Fitted, list[TrainingStep]]:
    depth, here, inputs = job.recipe.frozen_through, facts["fingerprint"], None
    if depth != "none":
        count = sum(len(pool.images) for pool in pools)
        with Ticker("freezing", count, "images") as ticker:
            if depth == "all":
                made = frozen.fit(job, *pools, project.activations, here, ticker.advance)
                return made[0], [made[1]]
            inputs = Activations(job, project.activations, here)
            new = inputs.make(*pools, progress=ticker.advance)
        print(f"frozen    through {depth}: activations of {count} images, {new} new")
    saved, pace = keeper.found(team), Pace(*usual_speed(project, job.start.metadata["day"], facts))
    steps = [*saved.steps] if saved else []
    if saved:
        print(f"resumed   going on from update {len(steps)}, where training was stopped")
    try:
        with _progress(job.recipe, steps, pace) as report:
            fitted = fitting.fit(
                job,
                *pools,
                report=report,
                inputs=inputs,
                team=team,
                saved=saved,
                keep=lambda state: keeper.keep(steps, state) if team.leads else None,
            )
    except TrainingError:
        keeper.remove()  # none is to go on from it
        raise
    return fitted, steps


def _write_model(
    project: Project, day: _Day, facts: dict[str, Any], fitted: Fitted, pools: tuple[Pool, Pool]
) -> dict[str, int]:
    """Calibrate and write the model; return how many images are validated, right, and pooled."""
    logits, (pool, validation) = fitted.logits, pools
    own = (logits.double().numpy(), validation.targets.numpy())
    images, right = len(logits), len(logits) - calibration.wrong(own)
    temperature, lacking, pooled = calibration.fitted(own, lambda: _of_yesterday(day, pool))
    more = f" and {plural(pooled, 'image')} of {facts['day']} as yesterday's model saw them"
    basis = plural(images, "validation image") + more * bool(pooled)
    found = f"Temperature {temperature:g}, of {basis}"
    if lacking:
        found = f"Confidence is not calibrated: {lacking}"
    print(f"Validation: {right} of {images} correct. " * bool(images) + f"{found}.")
    units, unit = day.held.select(evidence.UNITS).item(), evidence.unit_of(day.held)
    metadata = {
        "classes": list(day.whole.classes),
        "day": facts["day"],
        "network": day.whole.network,
        "no_limit": f"too few validation {unit}s ({units})" * evidence.is_too_few(units),
        "recipe": facts["recipe"],
        "sha256": day.pins,
        "temperature": temperature,
        "not_calibrated": lacking,
        "calibrated_on": basis * (not lacking),
    }
    state = network.with_retired(fitted.state, day.whole, day.retired)
    chances = (logits / temperature).softmax(1)
    distances = fitted.known.distance(fitted.features, chances).sort().values
    network.save(project.model, state, metadata, replace(fitted.known, distances=distances))
    return {"images": images, "right": right, "pooled": pooled}


def _of_yesterday(day: _Day, pool: Pool) -> calibration.Answers:
    """What yesterday's model says of today's training images, which it has not learnt from."""
    job = day.job
    if not (job.teacher and len(day.news)):
        return np.zeros((0, 0)), np.zeros(0, np.int64)
    net = network.build(job.teacher, job.recipe.image_size_px).to(job.machine.device)
    logits = network.outputs(net, pool.pixels[day.news], job.machine)
    return logits.double().numpy(), pool.targets[day.news].numpy()


def _drawn(day: _Day, fitted: Fitted) -> dict[str, Any]:
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
    if day.new:
        print(f"new       {', '.join(day.new)}")
    if day.job.unseen:
        names = [day.job.start.classes[at] for at in day.job.unseen]
        print(f"held      {evidence.no_image(names)}; held to yesterday's answers")
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
    recipe: Train, steps: list[TrainingStep], pace: Pace
) -> Iterator[Callable[[TrainingStep], None]]:
    updates, began, done = recipe.updates, time.monotonic(), len(steps)
    ends = {updates * epoch // fitting.EPOCHS for epoch in range(1, fitting.EPOCHS + 1)}

    with Ticker("training", updates * recipe.batch_size, "images") as ticker:
        ticker.so_far(done * recipe.batch_size, updates * recipe.batch_size)

        def report(step: TrainingStep) -> None:
            steps.append(step)
            ticker.advance(recipe.batch_size, f"loss {step.loss:.3f}")
            if slow := pace.after(recipe.batch_size):
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
