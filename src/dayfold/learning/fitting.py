"""One day's training: weighted draws, AdamW, mean of weights.

A day costs `train.updates` updates of `train.batch_size` draws, however long the history. They are
made in five epochs: in each, every image is drawn as often as its weight says, within one draw.
Which images, in which order and changed how is a function of seed, day, epoch and image only, so a
training that goes on from any update comes to the same bits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.optim import swa_utils

from dayfold import draws
from dayfold.errors import TrainingError
from dayfold.learning import checkpoint, network, unknown
from dayfold.learning.adamw import AdamW
from dayfold.learning.checkpoint import Saved
from dayfold.learning.inputs import Activations, Images, Job, Pool
from dayfold.learning.network import Model, State
from dayfold.learning.parallel import ALONE, Slices, Team, slices_of
from dayfold.learning.unknown import Known
from dayfold.ledger.tables import TrainingStep
from dayfold.project.params import Train

EPOCHS = 5  # of a day: each has a plan of draws of its own, and ends with a look at all weights
WARM_UP = 0.1  # part of the updates over which the learning rate rises
LABEL_SMOOTHING = 0.1
DISTILL_TEMPERATURE = 2.0
UNSEEN_WEIGHT = 1.0  # of how far the answers of classes without images are from yesterday's

Inputs = Images | Activations


class Fitted(NamedTuple):
    """A trained state, how often each image of the pool was drawn, and what validation came to.

    `drawn` int64 [n]; of the trained network `known`, its classes as it has learnt them, and
    `features` float32 [validation images, d] and `logits` float32 [validation images, classes].
    """

    state: State
    drawn: NDArray[np.int64]
    known: Known
    features: torch.Tensor
    logits: torch.Tensor


def learning_rate(update: int, updates: int, *, peak: float) -> float:
    """Return the rate of update 0..updates-1: a linear rise over WARM_UP, a half cosine to 0."""
    rising = math.ceil(WARM_UP * updates)
    if update < rising:
        return peak * (update + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, updates - rising)))


def on_parent(recipe: Train, parent: Model) -> Train:
    """Return the recipe of a day on this parent.

    A random origin has learnt nothing to freeze, and a mean would only lag behind what is learnt;
    where the head alone learns, there is no other way.
    """
    if parent.metadata.get("made") != "random" or recipe.frozen_through == "all":
        return recipe
    return recipe.model_copy(update={"frozen_through": "none", "ema_length": 0.0})


def ema_decay(length: float, updates: int) -> float:
    """Return the decay an update of an exponential mean that looks back on `length` x `updates`.

    A part of the day's updates, as Karras et al. 2024 measure it, and no count: what the first
    update still weighs is then the same in a day of 10 updates and of 1,000.
    """
    return 1 - 1 / max(1.0, length * updates)


def fit(
    job: Job,
    pool: Pool,
    validation: Pool,
    *,
    report: Callable[[TrainingStep], None],
    inputs: Inputs | None = None,
    team: Team = ALONE,
    saved: Saved | None = None,
    keep: Callable[[Callable[[], State]], None] = lambda _state: None,
) -> Fitted:
    """Train on weighted draws from `pool`; tell `report` of every update.

    Without `inputs` the whole network is trained, on images. Validation images are predicted once,
    by the network that is kept, and never learnt from. Each process of a `team` takes its slice of
    every batch of the one plan, and all end with the same network. After every update but the last,
    `keep` is given a function that returns the training's state; with what was kept of the same
    training as `saved`, it goes on from there, to the same bits.
    """
    training = Training(job, pool, inputs or Images(job), team)
    done = len(saved.steps) if saved else 0
    if saved:
        training.resume(saved.state)
    updates, size = job.recipe.updates, job.recipe.batch_size
    drawn = np.zeros(len(pool.images), dtype=np.int64)
    for epoch in range(1, EPOCHS + 1):
        first, last = updates * (epoch - 1) // EPOCHS, updates * epoch // EPOCHS
        count = (last - first) * size
        plan = draws.epoch_order(pool.images, pool.weights, count, job.seed, job.day, epoch)
        drawn += np.bincount(plan, minlength=len(drawn))
        for update in range(max(first, done), last):
            place = (update - first) * size
            report(training.update(update, epoch, plan[place : place + size], place))
            # Before it is kept, and not after each: a look at all weights takes some milliseconds.
            if update + 1 == last:
                training.check_finite()
            if update + 1 < updates:
                keep(training.state)
    return training.end(validation, drawn)


class Training:
    """The network in training, its optimizer and its mean; `at` is the last update, for errors."""

    def __init__(self, job: Job, pool: Pool, inputs: Inputs, team: Team) -> None:
        self._job, self._pool, self._inputs, self._team = job, pool, inputs, team
        self._net = network.build(job.start, job.recipe.image_size_px).to(job.machine.device)
        self._learner = inputs.learner(self._net).train()
        count = slices_of(job.machine, job.recipe.batch_size // team.size)
        loss = _Loss(job, pool, inputs)
        self._slices = Slices(self._learner, loss, count, job.machine.threads)
        self._optimizer = AdamW(self._learner.parameters())
        self._average: swa_utils.AveragedModel | None = None
        if decay := ema_decay(job.recipe.ema_length, job.recipe.updates):
            ema = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self._average = swa_utils.AveragedModel(self._net, multi_avg_fn=ema, use_buffers=True)
        self._at = (0, job.recipe.updates, 0.0)

    def resume(self, state: State) -> None:
        """Go on from what a checkpoint kept."""
        for name, tensor in self._changing().items():
            tensor.copy_(state[name])

    def update(
        self, number: int, epoch: int, chosen: NDArray[np.int64], place: int
    ) -> TrainingStep:
        """Make update `number` (from 0) by a batch that begins at this place of the epoch."""
        updates = self._job.recipe.updates
        rate = learning_rate(number, updates, peak=self._job.recipe.learning_rate)
        self._at = (number + 1, updates, rate)
        part = self._team.slice(len(chosen))
        mine = chosen[part]
        batch = self._inputs.drawn(self._pool, mine, epoch, first=place + part.start)
        whole = self.step(batch, mine, rate, part=len(mine) / len(chosen))
        return TrainingStep(number + 1, epoch, whole, rate)

    def step(
        self, batch: torch.Tensor, rows: NDArray[np.int64], rate: float, *, part: float = 1.0
    ) -> float:
        """Learn from a process's `part` of a batch, made of these rows; return the whole's loss."""
        self._optimizer.zero_grad()
        loss = self._slices.backward(batch, rows)
        whole = self._team.combine(self._learner, loss, part)
        if not math.isfinite(whole):
            raise self._diverged("the loss")
        self._optimizer.step(rate)
        if self._average:
            self._average.update_parameters(self._net)
        return whole

    def state(self) -> State:
        """Return what a checkpoint keeps."""
        self.check_finite()
        return {name: one.detach().cpu().contiguous() for name, one in self._changing().items()}

    def _changing(self) -> State:
        return checkpoint.changing(self._net, self._optimizer, self._average)

    def check_finite(self) -> None:
        """Raise TrainingError where a weight is not finite."""
        for name, tensor in self._net.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise self._diverged(f"the weight {name}")

    def end(self, validation: Pool, drawn: NDArray[np.int64]) -> Fitted:
        """Return the network that is kept (the mean, if there is one), and its answers."""
        self._net = self._average.module if self._average else self._net
        self.check_finite()
        chosen = unknown.sample(self._pool.images, self._pool.targets.numpy())
        shown, _ = self._asked(self._pool, chosen)
        features, logits = self._asked(validation, np.arange(len(validation.images)))
        if not bool(logits.isfinite().all()):
            raise self._diverged("an answer on a validation image")
        known = Known.of(shown, self._pool.targets[chosen], logits.shape[1])
        state = network.state_of(self._net, self._job.start, self._job.recipe.image_size_px)
        return Fitted(state, drawn, known, features, logits)

    def _asked(self, pool: Pool, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        learner = network.WithFeatures(self._inputs.learner(self._net))
        batches = np.split(chosen, range(network.BATCH, len(chosen), network.BATCH))
        given = (self._inputs.plain(pool, batch) for batch in batches)
        return learner.parted(network.answers(learner, given, self._job.machine))

    def _diverged(self, what: str) -> TrainingError:
        update, updates, rate = self._at
        return TrainingError(
            f"Training stopped at update {update} of {updates}, at the learning rate {rate:.3g}: "
            f"{what} is no longer finite (NaN or infinite). Nothing of it was kept.",
            hint="in params.yaml, lower train.learning_rate (to a tenth, say); if it stops at "
            "update 1, check the weights that it starts from (origin.weights); with "
            "train.precision: bf16, try fp32; then dvc repro",
        )


class _Loss:
    """Cross-entropy with smoothed labels, and distillation where the recipe asks for it.

    Classes without images have no part in the cross-entropy: each image would speak against them.
    Their logits are held to yesterday's on the images that there are (a squared error, as Buzzega
    et al. 2020 replay logits), so the layers below go on telling them apart.
    """

    def __init__(self, job: Job, pool: Pool, inputs: Inputs) -> None:
        self._distill, self._machine = job.recipe.distill, job.machine
        self._unseen = list(job.unseen)
        self._seen = [at for at in range(len(job.start.classes)) if at not in job.unseen]
        places = torch.zeros(len(job.start.classes), dtype=torch.int64)
        places[self._seen] = torch.arange(len(self._seen))
        self._targets = pool.targets.to(job.machine.device)
        self._places = places[pool.targets].to(job.machine.device)
        self._teacher: torch.nn.Module | None = None
        if (self._distill or self._unseen) and job.teacher and job.teacher.classes:
            net = network.build(job.teacher, job.recipe.image_size_px).to(job.machine.device)
            # Its frozen part is that of the network in training, so it is given the same.
            self._teacher, self._known = inputs.learner(net).eval(), len(job.teacher.classes)

    def __call__(
        self, learner: torch.nn.Module, batch: torch.Tensor, chosen: NDArray[np.int64]
    ) -> torch.Tensor:
        """The loss of a batch, float32 []: of images `chosen`, int64 [n], made into `batch`."""
        with self._machine.autocast():
            logits = learner(batch)
        told = logits[:, self._seen] if self._unseen else logits
        loss = functional.cross_entropy(
            told.float(), self._places[chosen], label_smoothing=LABEL_SMOOTHING, reduction="none"
        ).mean()
        if not self._teacher:
            return loss
        with torch.no_grad(), self._machine.autocast():
            wanted = self._teacher(batch).float()
        if self._unseen:
            gap = logits[:, self._unseen].float() - wanted[:, self._unseen]
            loss = loss + UNSEEN_WEIGHT * gap.square().mean()
        if self._distill:
            far = self._distance(wanted, logits[:, : self._known].float())
            # Of a class that is new today yesterday's model can only say what is not true.
            loss = loss + self._distill * (far * (self._targets[chosen] < self._known)).mean()
        return loss

    @staticmethod
    def _distance(wanted: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """How far each answer is from yesterday's on the classes that it knew, float32 [n].

        T^2 KL(softmax(teacher / T) || softmax(student / T)): Hinton, Vinyals & Dean 2015, over the
        known classes only as in Li & Hoiem 2016 (learning without forgetting).
        """
        return DISTILL_TEMPERATURE**2 * functional.kl_div(
            functional.log_softmax(given / DISTILL_TEMPERATURE, dim=1),
            functional.log_softmax(wanted / DISTILL_TEMPERATURE, dim=1),
            reduction="none",
            log_target=True,
        ).sum(dim=1)
