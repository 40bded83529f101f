"""train: yesterday's model, today's images and the replay set → today's model."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import torch

from dayfold import __version__, draws
from dayfold.errors import CycleError, TrainingError
from dayfold.learning import (
    activations,
    calibration,
    checkpoint,
    device,
    fingerprint,
    fitting,
    network,
    pixels,
    processes,
)
from dayfold.learning.activations import Activations
from dayfold.learning.device import Machine
from dayfold.learning.inputs import Pool
from dayfold.learning.processes import ALONE, Team
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import PoolShare, Replayed, TrainingStep
from dayfold.project.console import Ticker
from dayfold.project.files import canonical_json, json_bytes, only_one, sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params, Train

VALIDATION_IMAGES = 512  # at most, of earlier days; today's all count


def run(project: Project, params: Params) -> None:
    """Read the day's plans, its images and the parent; write model, provenance, training.csv."""
    recipe = params.train
    with only_one(project.trainer_lock, "training"):
        if recipe.processes == 1:
            _train(project, params, ALONE)
            return
        log = "" if sys.stdout is sys.__stdout__ else str(getattr(sys.stdout, "name", ""))
        words = (str(project.root), canonical_json(params.model_dump()), log)
        processes.launch(__name__, words, processes=recipe.processes, threads=recipe.threads)


def work(root: str, params: str, log: str) -> None:
    """Be one of several processes that train: with the project's folder and params as JSON."""
    chosen = Params.model_validate_json(params)
    with processes.joined(_machine(chosen.train).device, log) as team:
        _train(Project(Path(root)), chosen, team)


def _machine(recipe: Train) -> Machine:
    return device.resolve(
        device=recipe.device,
        precision=recipe.precision,
        threads=recipe.threads,
        processes=recipe.processes,
    )


def _train(project: Project, params: Params, team: Team) -> None:
    day, seed = params.day, params.seed
    parent = network.load(project.parent_model)
    recipe = fitting.on_parent(params.train, parent)
    history = manifest.history(project, day)
    shares = tables.read(project.shares, PoolShare).filter(pl.col("day") == day)
    replay = tables.read(project.replay, Replayed)
    arrived = manifest.added(history, day)
    columns = ["image", "path", "label", "weight"]
    today = arrived.filter(pl.col("split") == "train").join(
        shares.select("label", "weight"), on="label", how="left", maintain_order="left"
    )
    rows = pl.concat([today.select(columns), replay.select(columns)])
    if rows.is_empty():
        raise CycleError(
            f"There is nothing to train on: no training image on {day} and no replay set.",
            mend="dayfold add more images, or set replay.size in params.yaml",
        )
    classes = history.classes()[day]
    # Of every class with images, also where none of them is in today's pool: a class that was
    # renamed would otherwise be answered by neither of its names.
    newcomers = sorted({*classes.live, *replay["label"]} - set(parent.classes))
    renamed = {later: old for old, later in classes.renamed.items()}
    whole = network.grown(parent, newcomers, seed, like=renamed)
    retired = [name for name in whole.classes if name in classes.retired]
    start = network.without(whole, retired)
    machine = _machine(recipe)
    here = fingerprint.fingerprint(machine)
    pins = {
        "parent": sha256_file(project.parent_model),
        "manifest": history.sha256,
        "weights": sha256_file(project.weights),
        "replay": sha256_file(project.replay),
        "shares": sha256_file(project.shares),
    }
    resolved = {
        **recipe.model_dump(),
        "seed": seed,
        "optimizer": "AdamW",
        "device": machine.device,
        "precision": machine.precision,
    }
    held = _validation_rows(history, day, seed).filter(pl.col("label").is_in(start.classes))
    began = time.monotonic()
    with Ticker("decoding", len(rows) + len(held), "images") as ticker:
        size = recipe.image_size_px
        pool = _load(project, rows, start.classes, size, ticker)
        validation = _load(project, held.with_columns(weight=0.0), start.classes, size, ticker)
    decoded = time.monotonic() - began
    _print_recipe(params, machine, start.classes, classes.new, today, replay, decoded)
    if retired:
        print(f"retired   {', '.join(retired)}: without images now, never predicted", flush=True)
    taken = {
        "dayfold": __version__,
        "day": day,
        "classes": list(start.classes),
        "recipe": resolved,
        "sha256": pins,
        "fingerprint": here,
    }
    team.agree(canonical_json(taken).encode(), "The inputs or the fingerprint")
    keeper = checkpoint.Keeper(project.checkpoints, taken, every_minutes=params.checkpoint.minutes)
    saved = keeper.going_on(team.share(keeper.found() if team.leads else b""))
    steps = saved.steps if saved else []
    if saved:
        print(f"resumed   going on from update {saved.update}, where training was stopped")
    frozen = None
    if recipe.frozen_through != "none":
        frozen = Activations(
            start, project.activations, here, recipe=recipe, seed=seed, day=day, machine=machine
        )
        count = len(rows) + len(held)
        with Ticker("freezing", count, "images") as ticker:
            made = frozen.make(pool, validation, progress=ticker.advance)
        print(
            f"frozen    through {recipe.frozen_through}: activations of {count} images, {made} new"
        )
    with keeper.removed_on(TrainingError), _progress(recipe, steps) as report:
        state, drawn, logits = fitting.fit(
            start,
            pool,
            validation,
            # Grown by nothing: a class that came back is asked about again.
            teacher=network.without(network.grown(parent, (), seed, like=renamed), retired),
            recipe=recipe,
            seed=seed,
            day=day,
            machine=machine,
            report=report,
            inputs=frozen,
            team=team,
            saved=saved,
            keep=lambda update, state: keeper.keep(update, steps, state) if team.leads else None,
        )
    team.agree(b"".join(tensor.numpy().tobytes() for tensor in state.values()), "The weights")
    if not team.leads:
        return
    temperature = calibration.temperature(logits.double().numpy(), validation.targets.numpy())
    right = int((logits.argmax(1) == validation.targets).sum())
    print(
        f"validated {right} of {len(held)} validation images right; "
        f"calibrated on them, at temperature {temperature:g}"
        if len(held)
        else "validated nothing, without validation images; so confidences are not calibrated"
    )
    state = network.with_retired(state, whole, retired)
    metadata = {
        "classes": list(whole.classes),
        "day": day,
        "recipe": resolved,
        "sha256": pins,
        "temperature": temperature,
    }
    network.save(project.model, state, metadata)
    tables.write(project.plot("training"), TrainingStep, steps)
    draws_by_class = Counter[str]()
    for label, count in zip(rows["label"], drawn, strict=True):
        draws_by_class[label] += int(count)
    provenance = {
        "day": day,
        "parent": params.parent,
        "classes": list(whole.classes),
        "new_classes": list(classes.new),
        "retired_classes": retired,
        "images": {
            "today": len(arrived),
            "replayed": len(replay),
            "trained": len(rows),
        },
        "validation": {"images": len(held), "right": right},
        "draws": {
            "all": int(drawn.sum()),
            "today": int(drawn[: len(today)].sum()),
            "by_class": dict(sorted(draws_by_class.items())),
        },
        "sha256": {"model": sha256_file(project.model), **pins},
        "recipe": resolved,
        "fingerprint": here,
        "seconds": {
            "decode": round(decoded, 1),
            "train": round(keeper.seconds(), 1),
        },
    }
    write_bytes(project.provenance, json_bytes(provenance))
    keeper.remove()
    activations.prune(project.activations)


def _validation_rows(history: manifest.History, day: str, seed: int) -> pl.DataFrame:
    """All of today's validation images and a sample of the earlier ones."""
    held = history.split("validation")
    today, old = held.filter(pl.col("day") == day), held.filter(pl.col("day") != day)
    equal = [1.0] * len(old)
    chosen, _ = draws.priority_sample(
        old["image"].to_list(), equal, VALIDATION_IMAGES, "validation", seed, day
    )
    return pl.concat([today, old[np.sort(chosen)]])


def _load(
    project: Project, rows: pl.DataFrame, classes: Sequence[str], size: int, ticker: Ticker
) -> Pool:
    ids = {label: position for position, label in enumerate(classes)}
    images = rows["image"].to_list()
    return Pool(
        pixels.load(project.root, rows["path"].to_list(), images, size, ticker.advance),
        torch.tensor([ids[label] for label in rows["label"]], dtype=torch.int64),
        images,
        rows["weight"].to_list(),
    )


def _print_recipe(
    params: Params,
    machine: Machine,
    classes: Sequence[str],
    new: Sequence[str],
    today: pl.DataFrame,
    replay: pl.DataFrame,
    decoded: float,
) -> None:
    recipe = params.train
    mass = [float(today["weight"].sum()), float(replay["weight"].sum())]
    updates = recipe.epochs * recipe.updates_per_epoch
    print(f"from      {params.parent}, {len(classes)} classes")
    if new:
        print(f"new       {', '.join(new)}")
    print(
        f"images    {len(today)} of today ({mass[0] / sum(mass):.1%} of the draws), "
        f"{len(replay)} replayed; decoded in {decoded:.1f} s"
    )
    print(
        f"budget    {updates} updates of {recipe.batch_size} in {recipe.epochs} epochs, "
        f"AdamW at {recipe.learning_rate:g}, decay {recipe.weight_decay:g}, "
        f"smoothing {recipe.label_smoothing:g}, seed {params.seed}"
    )
    several = f"{machine.processes} processes of " if machine.processes > 1 else ""
    print(
        f"machine   {machine.device}, {machine.precision}, {several}{machine.threads} threads, "
        f"{recipe.image_size_px} px",
        flush=True,
    )


@contextmanager
def _progress(recipe: Train, steps: list[TrainingStep]) -> Iterator[Callable[[TrainingStep], None]]:
    """Keep every step, and show a bar on a terminal; elsewhere a line an epoch."""
    updates, began, done = recipe.epochs * recipe.updates_per_epoch, time.monotonic(), len(steps)

    with Ticker("training", updates * recipe.batch_size, "images") as ticker:
        ticker.so_far(done * recipe.batch_size, updates * recipe.batch_size)

        def report(step: TrainingStep) -> None:
            steps.append(step)
            ticker.advance(recipe.batch_size, f"loss {step.loss:.3f}")
            if step.step % recipe.updates_per_epoch == 0:
                seconds = (time.monotonic() - began) / (step.step - done)
                ticker.line(
                    f"epoch {step.epoch}/{recipe.epochs}  loss {step.loss:.3f}  "
                    f"{recipe.batch_size / seconds:.0f} img/s  "
                    f"{seconds * (updates - step.step):.0f} s left"
                )

        yield report


if __name__ == "__main__":
    work(*sys.argv[1:])
