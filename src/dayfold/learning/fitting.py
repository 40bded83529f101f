"""One day's training: weighted draws from a pool of images, and what may be done beside it."""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.optim import swa_utils

from dayfold import draws
from dayfold.errors import TrainingError
from dayfold.learning import checkpoint, network
from dayfold.learning.checkpoint import Saved
from dayfold.learning.device import Machine
from dayfold.learning.inputs import Images, Inputs, Pool
from dayfold.learning.network import Model, State
from dayfold.learning.processes import ALONE, Team
from dayfold.ledger.tables import TrainingStep
from dayfold.project.params import Train

VALIDATION_BATCH = 256  # images predicted at a time


class Fitted(NamedTuple):
    """A trained state, how often each image of the pool was drawn, and what validation came to.

    `drawn` int64 [n]; `logits` float32 [validation images, classes], of the trained network.
    """

    state: State
    drawn: NDArray[np.int64]
    logits: torch.Tensor


def learning_rate(update: int, updates: int, *, peak: float, warm_up: float) -> float:
    """Return the rate of update 0..updates-1: a linear rise over `warm_up`, a half cosine to 0."""
    rising = math.ceil(warm_up * updates)
    if update < rising:
        return peak * (update + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, updates - rising)))


def on_parent(recipe: Train, parent: Model) -> Train:
    """Return the recipe of a day on this parent.

    A random origin has learnt nothing to freeze, and a mean would only lag behind what is learnt.
    """
    if parent.metadata.get("made") != "random":
        return recipe
    return recipe.model_copy(update={"frozen_through": "none", "ema_length": 0.0})


def ema_decay(length: float, updates: int) -> float:
    """Return the decay an update of an exponential mean that looks back on `length` x `updates`.

    A part of the day's updates, as Karras et al. 2024 measure it, and no count: what the first
    update still weighs is then the same in a day of 10 updates and of 1,000.
    """
    return 1 - 1 / max(1.0, length * updates)


def fit(
    start: Model,
    pool: Pool,
    validation: Pool,
    *,
    teacher: Model | None,
    recipe: Train,
    seed: int,
    day: str,
    machine: Machine,
    report: Callable[[TrainingStep], None],
    inputs: Inputs | None = None,
    team: Team = ALONE,
    saved: Saved | None = None,
    keep: Callable[[int, Callable[[], State]], None] = lambda _update, _state: None,
) -> Fitted:
    """Train a network from `start` on weighted draws from `pool`; tell `report` of every update.

    A day costs epochs x updates_per_epoch updates of batch_size draws, however long the history.
    Which images, in which order, changed how: `draws.epoch_order` and `inputs`, of seed, day, epoch
    and image only; without `inputs` the whole network is trained, on images. Validation is looked
    at once, by the network that is kept, and never learnt from. `teacher` is yesterday's model,
    asked where `recipe.distill` is above 0.
    Each process of a `team` takes its slice of every batch of the one plan, and all end with the
    same network. After every update but the last, `keep` is given its number and a function that
    returns the training's state; with what was kept of the same training as `saved`, it goes on
    from there, to the same bits.
    """
    if recipe.shrink < 1 or recipe.perturb:
        start = network.perturbed(
            start, shrink=recipe.shrink, perturb=recipe.perturb, seed=seed, day=day
        )
    inputs = inputs or Images(recipe, seed, day, machine)
    net = network.build(start, recipe.image_size_px).to(machine.device)
    learner = inputs.learner(net)
    loss_of = _Loss(recipe, pool, teacher, machine, inputs)
    optimizer = adamw(learner, recipe)
    updates = recipe.epochs * recipe.updates_per_epoch
    average, decay = None, ema_decay(recipe.ema_length, updates)
    if decay:
        ema = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average = swa_utils.AveragedModel(net, multi_avg_fn=ema, use_buffers=True)
    if saved:
        checkpoint.scatter(saved.state, net, optimizer, average)
    done = saved.update if saved else 0
    drawn = np.zeros(len(pool.images), dtype=np.int64)
    chances = pool.weights if recipe.loss == "sampled" else [1.0] * len(pool.weights)
    update = 0
    for epoch in range(1, recipe.epochs + 1):
        count = recipe.updates_per_epoch * recipe.batch_size
        plan = draws.epoch_order(pool.images, chances, count, seed, day, epoch)
        drawn += np.bincount(plan, minlength=len(drawn))
        learner.train()
        for first in range(0, len(plan), recipe.batch_size):
            if update < done:
                update += 1
                continue
            chosen = plan[first : first + recipe.batch_size]
            rate = learning_rate(update, updates, peak=recipe.learning_rate, warm_up=recipe.warm_up)
            for group in optimizer.param_groups:
                group["lr"] = rate
            part = team.slice(len(chosen))
            whole, chosen = len(chosen), chosen[part]
            batch = inputs.drawn(pool, chosen, epoch, first=first + part.start)
            loss = loss_of(learner, batch, chosen)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            loss_of_batch = team.combine(learner, loss, len(chosen) / whole)
            at = (update + 1, updates, rate)
            if not math.isfinite(loss_of_batch):
                raise _diverged("the loss", *at)
            optimizer.step()
            if average:
                average.update_parameters(net)
            update += 1
            report(TrainingStep(update, epoch, loss_of_batch, rate))
            # Once an epoch, and before it is kept: a look at all weights takes some milliseconds.
            if update % recipe.updates_per_epoch == 0:
                _check_finite(net, *at)
            if update < updates:
                keep(update, partial(_gather, net, optimizer, average, at))
    net = average.module if average else net
    learner = inputs.learner(net)
    _measure_batch_norms(learner, inputs, pool, recipe, machine, seed, day)
    asked = np.arange(len(validation.images))
    batches = np.split(asked, range(VALIDATION_BATCH, len(asked), VALIDATION_BATCH))
    shown = (inputs.plain(validation, batch) for batch in batches)
    logits = network.answers(learner, shown, machine)
    _check_finite(net, *at)
    if not bool(logits.isfinite().all()):
        raise _diverged("an answer on a validation image", *at)
    return Fitted(network.state_of(net, start, recipe.image_size_px), drawn, logits)


def _gather(
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: swa_utils.AveragedModel | None,
    at: tuple[int, int, float],
) -> State:
    _check_finite(net, *at)
    return checkpoint.gather(net, optimizer, average)


def _check_finite(net: torch.nn.Module, update: int, updates: int, rate: float) -> None:
    for name, tensor in net.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise _diverged(f"the weight {name}", update, updates, rate)


def _diverged(what: str, update: int, updates: int, rate: float) -> TrainingError:
    """The error of a training whose numbers left the range of floats."""
    return TrainingError(
        f"Training stopped at update {update} of {updates}, at the learning rate {rate:.3g}: "
        f"{what} is no longer finite (NaN or infinite). Nothing of it was kept.",
        mend="in params.yaml, lower train.learning_rate (to a tenth, say) or raise train.warm_up; "
        "if it stops at update 1, look at what it starts from (origin.weights, train.perturb); "
        "with train.precision: bf16, try fp32; then dvc repro",
    )


class _Loss:
    """Cross-entropy with smoothed labels, and what the recipe adds to it."""

    def __init__(
        self,
        recipe: Train,
        pool: Pool,
        teacher: Model | None,
        machine: Machine,
        inputs: Inputs,
    ) -> None:
        self._recipe, self._machine = recipe, machine
        self._targets = pool.targets.to(machine.device)
        weights = torch.tensor(pool.weights, dtype=torch.float32)
        self._weights = (weights / weights.mean()).to(machine.device)
        self._teacher: torch.nn.Module | None = None
        if recipe.distill and teacher and teacher.classes:
            net = network.build(teacher, recipe.image_size_px).to(machine.device)
            # Its frozen part is that of the network in training, so it is given the same.
            self._teacher, self._known = inputs.learner(net).eval(), len(teacher.classes)

    def __call__(
        self, learner: torch.nn.Module, batch: torch.Tensor, chosen: NDArray[np.int64]
    ) -> torch.Tensor:
        """The loss of a batch, float32 []: of images `chosen`, int64 [n], made into `batch`."""
        with self._machine.autocast():
            logits = learner(batch)
        losses = functional.cross_entropy(
            logits.float(),
            self._targets[chosen],
            label_smoothing=self._recipe.label_smoothing,
            reduction="none",
        )
        if self._recipe.loss == "recency":
            losses = losses * self._weights[chosen]
        loss = losses.mean()
        if self._teacher:
            far = self._distance(self._teacher, logits, batch)
            # Of a class that is new today yesterday's model can only say what is not true.
            known = self._targets[chosen] < self._known
            loss = loss + self._recipe.distill * (far * known).mean()
        return loss

    def _distance(
        self, teacher: torch.nn.Module, logits: torch.Tensor, batch: torch.Tensor
    ) -> torch.Tensor:
        """How far each answer is from yesterday's on the classes that it knew, float32 [n].

        T^2 KL(softmax(teacher / T) || softmax(student / T)): Hinton, Vinyals & Dean 2015, over the
        known classes only as in Li & Hoiem 2016 (learning without forgetting).
        """
        temperature = self._recipe.distill_temperature
        with torch.no_grad(), self._machine.autocast():
            wanted = teacher(batch).float()
        given = logits[:, : self._known].float()
        return temperature**2 * functional.kl_div(
            functional.log_softmax(given / temperature, dim=1),
            functional.log_softmax(wanted / temperature, dim=1),
            reduction="none",
            log_target=True,
        ).sum(dim=1)


def _measure_batch_norms(
    learner: torch.nn.Module,
    inputs: Inputs,
    pool: Pool,
    recipe: Train,
    machine: Machine,
    seed: int,
    day: str,
) -> None:
    """Replace the batch norms' running statistics by those of a class-balanced sample."""
    if not recipe.batch_norm_images:
        return
    labels = [str(target) for target in pool.targets.tolist()]
    scope = ("batch norm", seed, day)
    seats = draws.even_seats(dict(Counter(labels)), recipe.batch_norm_images, *scope)
    keys = draws.uniforms(*scope, ids=pool.images)
    chosen: list[int] = []
    for position in np.lexsort((np.asarray(pool.images), keys)):
        if seats[labels[position]]:
            seats[labels[position]] -= 1
            chosen.append(int(position))
    whole = max(len(chosen) // recipe.batch_size, 1) * recipe.batch_size
    batches = np.split(
        np.asarray(chosen[:whole]), range(recipe.batch_size, whole, recipe.batch_size)
    )
    with machine.autocast():
        swa_utils.update_bn([inputs.plain(pool, batch) for batch in batches], learner)


def adamw(learner: torch.nn.Module, recipe: Train) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), fused; no decay of biases and batch norms."""
    matrices = [p for p in learner.parameters() if p.ndim > 1]
    vectors = [p for p in learner.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )
