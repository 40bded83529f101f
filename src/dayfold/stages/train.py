"""train: yesterday's model, today's images and the replay set → today's model."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dayfold import draws
from dayfold.errors import CycleError
from dayfold.learning import device, network, pixels
from dayfold.learning.device import Machine
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Replayed, TrainingStep, VersionWeight
from dayfold.project.console import Ticker
from dayfold.project.files import json_bytes, only_one, sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params, Train

VALIDATION_IMAGES = 512  # at most, of earlier days; today's all count


@dataclass(frozen=True)
class Pool:
    """Images in memory: uint8 [n, 3, size, size], class ids int64 [n], ids, weights."""

    pixels: torch.Tensor
    targets: torch.Tensor
    images: Sequence[str]
    weights: Sequence[float]


def learning_rate(update: int, updates: int, *, peak: float, warm_up: float) -> float:
    """Return the rate of update 0..updates-1: a linear rise over `warm_up`, a half cosine to 0."""
    rising = math.ceil(warm_up * updates)
    if update < rising:
        return peak * (update + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, updates - rising)))


def fit(
    net: torch.nn.Module,
    pool: Pool,
    validation: Pool,
    *,
    recipe: Train,
    seed: int,
    day: str,
    machine: Machine,
    report: Callable[[TrainingStep], None],
) -> NDArray[np.int64]:
    """Train `net` in place on weighted draws from `pool` and tell `report` of every update.

    A day costs epochs x updates_per_epoch updates of batch_size draws, however long the history.
    Which images, in which order, changed how: `draws.epoch_order` and `pixels.changes`, of seed,
    day, epoch and image only. Validation is looked at, never learnt from.

    Returns how often each image of the pool was drawn, int64 [n].
    """
    optimizer = _optimizer(net, recipe)
    updates = recipe.epochs * recipe.updates_per_epoch
    drawn = np.zeros(len(pool.images), dtype=np.int64)
    update = 0
    for epoch in range(1, recipe.epochs + 1):
        plan = draws.epoch_order(
            pool.images,
            pool.weights,
            recipe.updates_per_epoch * recipe.batch_size,
            seed,
            day,
            epoch,
        )
        drawn += np.bincount(plan, minlength=len(drawn))
        net.train()
        for first in range(0, len(plan), recipe.batch_size):
            chosen = plan[first : first + recipe.batch_size]
            rate = learning_rate(update, updates, peak=recipe.learning_rate, warm_up=recipe.warm_up)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = pixels.normalised(pool.pixels[chosen].to(machine.device))
            names = [pool.images[position] for position in chosen]
            fields = pixels.changes(names, seed, day, epoch, first=first)
            batch = pixels.augmented(batch, fields, **recipe.augment.model_dump())
            with machine.autocast():
                logits = net(batch)
            loss = functional.cross_entropy(
                logits.float(),
                pool.targets[chosen].to(machine.device),
                label_smoothing=recipe.label_smoothing,
            )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            update += 1
            last = first + recipe.batch_size >= len(plan)
            accuracy = _accuracy(net, validation, machine) if last else None
            report(TrainingStep(update, epoch, loss.item(), rate, accuracy))
    return drawn


def _optimizer(net: torch.nn.Module, recipe: Train) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), fused; no decay of biases and batch norms."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )


def _accuracy(net: torch.nn.Module, pool: Pool, machine: Machine) -> float | None:
    if not len(pool.images):
        return None
    chances = network.probabilities(net, pool.pixels, machine, batch_size=256)
    return float((chances.argmax(1) == pool.targets).double().mean())


def run(project: Project, params: Params) -> None:
    """Read the day's plans, its images and the parent; write model, provenance, training.csv."""
    with only_one(project.trainer_lock, "training"):
        _run(project, params)


def _run(project: Project, params: Params) -> None:
    day, seed, recipe = params.day, params.seed, params.train
    parent = network.load(project.parent_model)
    history = manifest.history(project, day)
    weights = dict(tables.read(project.weights, VersionWeight).select("day", "weight").iter_rows())
    replay = tables.read(project.replay, Replayed)
    arrived = manifest.added(history, day)
    columns = ["image", "path", "label", "weight"]
    today = arrived.filter(pl.col("split") == "train").with_columns(weight=pl.lit(weights[day]))
    rows = pl.concat([today.select(columns), replay.select(columns)])
    if rows.is_empty():
        raise CycleError(
            f"There is nothing to train on: no training image on {day} and no replay set.",
            mend="dayfold add more images, or set replay.size in params.yaml",
        )
    newcomers = sorted({*arrived["label"], *replay["label"]} - set(parent.classes))
    start = network.grown(parent, newcomers, seed)
    machine = device.resolve(
        device=recipe.device, precision=recipe.precision, threads=recipe.threads
    )
    held = _validation_rows(history, day, seed).filter(pl.col("label").is_in(start.classes))
    began = time.monotonic()
    with Ticker("decoding", len(rows) + len(held), "images") as ticker:
        size = recipe.image_size_px
        pool = _load(project, rows, start.classes, size, ticker)
        validation = _load(project, held.with_columns(weight=0.0), start.classes, size, ticker)
    decoded = time.monotonic() - began
    net = network.build(start).to(machine.device)
    _print_recipe(params, machine, start.classes, newcomers, today, replay, decoded)
    steps: list[TrainingStep] = []
    with _progress(recipe, steps) as report:
        drawn = fit(
            net,
            pool,
            validation,
            recipe=recipe,
            seed=seed,
            day=day,
            machine=machine,
            report=report,
        )
    pins = {
        "parent": sha256_file(project.parent_model),
        "manifest": history.sha256,
        "weights": sha256_file(project.weights),
        "replay": sha256_file(project.replay),
    }
    resolved = {
        **recipe.model_dump(),
        "seed": seed,
        "optimizer": "AdamW",
        "device": machine.device,
        "precision": machine.precision,
    }
    metadata = {"classes": list(start.classes), "day": day, "recipe": resolved, "sha256": pins}
    network.save(project.model, net.state_dict(), metadata)
    tables.write(project.plot("training"), TrainingStep, steps)
    draws_by_class = Counter[str]()
    for label, count in zip(rows["label"], drawn, strict=True):
        draws_by_class[label] += int(count)
    provenance = {
        "day": day,
        "parent": params.parent,
        "classes": list(start.classes),
        "new_classes": newcomers,
        "images": {
            "today": len(arrived),
            "replayed": len(replay),
            "trained": len(rows),
        },
        "draws": {
            "all": int(drawn.sum()),
            "today": int(drawn[: len(today)].sum()),
            "by_class": dict(sorted(draws_by_class.items())),
        },
        "sha256": {"model": sha256_file(project.model), **pins},
        "recipe": resolved,
        "fingerprint": device.fingerprint(machine),
        "seconds": {
            "decode": round(decoded, 1),
            "train": round(time.monotonic() - began - decoded, 1),
        },
    }
    write_bytes(project.provenance, json_bytes(provenance))


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
    newcomers: Sequence[str],
    today: pl.DataFrame,
    replay: pl.DataFrame,
    decoded: float,
) -> None:
    recipe = params.train
    mass = [float(today["weight"].sum()), float(replay["weight"].sum())]
    updates = recipe.epochs * recipe.updates_per_epoch
    print(f"from      {params.parent}, {len(classes)} classes")
    if newcomers:
        print(f"new       {', '.join(newcomers)}")
    print(
        f"images    {len(today)} of today ({mass[0] / sum(mass):.1%} of the draws), "
        f"{len(replay)} replayed; decoded in {decoded:.1f} s"
    )
    print(
        f"budget    {updates} updates of {recipe.batch_size} in {recipe.epochs} epochs, "
        f"AdamW at {recipe.learning_rate:g}, decay {recipe.weight_decay:g}, "
        f"smoothing {recipe.label_smoothing:g}, seed {params.seed}"
    )
    print(
        f"machine   {machine.device}, {machine.precision}, {machine.threads} threads, "
        f"{recipe.image_size_px} px",
        flush=True,
    )


@contextmanager
def _progress(recipe: Train, steps: list[TrainingStep]) -> Iterator[Callable[[TrainingStep], None]]:
    """Keep every step, and show a bar on a terminal; elsewhere a line an epoch."""
    updates, began = recipe.epochs * recipe.updates_per_epoch, time.monotonic()
    validation: list[float] = []

    with Ticker("training", updates * recipe.batch_size, "images") as ticker:

        def report(step: TrainingStep) -> None:
            steps.append(step)
            if step.validation_accuracy is not None:
                validation[:] = [step.validation_accuracy]
            known = f"  validation {validation[0]:.3f}" if validation else ""
            ticker.advance(recipe.batch_size, f"loss {step.loss:.3f}{known}")
            if step.step % recipe.updates_per_epoch == 0:
                seconds = time.monotonic() - began
                ticker.line(
                    f"epoch {step.epoch}/{recipe.epochs}  loss {step.loss:.3f}{known}  "
                    f"{step.step * recipe.batch_size / seconds:.0f} img/s  "
                    f"{seconds / step.step * (updates - step.step):.0f} s left"
                )

        yield report
