"""The training loop: weighted draws, AdamW.

A day costs `train.updates` updates of `train.batch_size` draws, however long the history. The
updates form five epochs; in each, every image is drawn as often as its weight says, within one
draw. The images, their order and their augmentation are a function of seed, day, epoch and image
only, so a training resumed after any update ends with the same bits.
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
from dayfold.learning import checkpoint, network, novelty
from dayfold.learning.adamw import AdamW
from dayfold.learning.checkpoint import Saved
from dayfold.learning.inputs import Activations, Images, Job, Pool
from dayfold.learning.network import Model, State
from dayfold.learning.novelty import NoveltyDetector
from dayfold.learning.parallel import ALONE, Slices, Team, slices_of
from dayfold.ledger.tables import TrainingStep
from dayfold.project.params import Train

EPOCHS = 5  # of a day: each has its own draws and ends with a check of all weights
WARM_UP = 0.1  # part of the updates over which the learning rate rises
LABEL_SMOOTHING = 0.1
DISTILL_TEMPERATURE = 2.0
UNSEEN_WEIGHT = 1.0  # weight of the squared error of logits of classes without images

Inputs = Images | Activations


class Fitted(NamedTuple):
    """A trained network, and what it makes of the validation images.

    `state` is its state dict; `drawn` int64 [n] says how often each image of the pool was drawn;
    `novelty` is fitted on the pool. `features` float32 [validation images, d] and `logits` float32
    [validation images, classes] are its outputs.
    """

    state: State
    drawn: NDArray[np.int64]
    novelty: NoveltyDetector
    features: torch.Tensor
    logits: torch.Tensor


def learning_rate(update: int, updates: int, *, peak: float) -> float:
    """Return the rate of update 0..updates-1: linear warm-up over WARM_UP, half cosine to 0."""
    warm_up = math.ceil(WARM_UP * updates)
    if update < warm_up:
        return peak * (update + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (update - warm_up) / max(1, updates - warm_up)))


def on_parent(recipe: Train, parent: Model) -> Train:
    """Return the recipe of a day that starts from this parent.

    A random origin has no layers worth freezing, and a moving average would only lag behind. A
    recipe that trains the head alone stays as it is.
    """
    if parent.metadata.get("made") != "random" or recipe.frozen_through == "all":
        return recipe
    return recipe.model_copy(update={"frozen_through": "none", "ema_length": 0.0})


def ema_decay(length: float, updates: int) -> float:
    """Return the decay of a moving average over the last `length` x `updates` updates.

    The length is a part of the day's updates, as in Karras et al. 2024: so the first update's
    weight in the end is the same in a day of 10 updates and of 1,000.
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
    keep: Callable[[Callable[[], State]], None] | None = None,
) -> Fitted:
    """Train on weighted draws from `pool`; call `report` after every update.

    Without `inputs` the whole network is trained, on images. Validation images are predicted once,
    by the final network, and never trained on. Each process of a `team` takes its slice of every
    batch, and all end with the same network. After every update but the last, `keep` is called with
    a function that returns the training's state. With such a state in `saved` the training resumes
    from there, to the same bits.
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
            # Not after every update: checking all weights takes some milliseconds.
            if update + 1 == last:
                training.check_finite()
            if keep and update + 1 < updates:
                keep(training.state)
    return training.finish(validation, drawn)


class Training:
    """The network in training, its optimizer and its moving average."""

    def __init__(self, job: Job, pool: Pool, inputs: Inputs, team: Team) -> None:
        self._job, self._pool, self._inputs, self._team = job, pool, inputs, team
        self._net = network.build(job.start, job.recipe.image_size_px).to(job.machine.device)
        self._trained = inputs.trained_part(self._net).train()
        count = slices_of(job.machine, job.recipe.batch_size // team.size)
        self._slices = Slices(self._trained, _Loss(job, pool, inputs), count, job.machine.threads)
        self._optimizer = AdamW(self._trained.parameters())
        self._average: swa_utils.AveragedModel | None = None
        if decay := ema_decay(job.recipe.ema_length, job.recipe.updates):
            ema = swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self._average = swa_utils.AveragedModel(self._net, multi_avg_fn=ema, use_buffers=True)
        self._at = (0, job.recipe.updates, 0.0)  # the last update, for error messages

    def resume(self, state: State) -> None:
        for name, tensor in self._live_state().items():
            tensor.copy_(state[name])

    def update(
        self, number: int, epoch: int, chosen: NDArray[np.int64], place: int
    ) -> TrainingStep:
        """Make update `number` (from 0) with a batch that begins at this place of the epoch."""
        updates = self._job.recipe.updates
        rate = learning_rate(number, updates, peak=self._job.recipe.learning_rate)
        self._at = (number + 1, updates, rate)
        part = self._team.slice(len(chosen))
        own = chosen[part]
        batch = self._inputs.train_batch(self._pool, own, epoch, first=place + part.start)
        loss = self.step(batch, own, rate, part=len(own) / len(chosen))
        return TrainingStep(number + 1, epoch, loss, rate)

    def step(
        self, batch: torch.Tensor, rows: NDArray[np.int64], rate: float, *, part: float = 1.0
    ) -> float:
        """Train on this process's `part` of a batch, of these rows; return the batch's loss."""
        self._optimizer.zero_grad()
        own_loss = self._slices.backward(batch, rows)
        loss = self._team.combine(self._trained, own_loss, part)
        if not math.isfinite(loss):
            raise self._diverged("the loss")
        self._optimizer.step(rate)
        if self._average:
            self._average.update_parameters(self._net)
        return loss

    def state(self) -> State:
        self.check_finite()
        return {name: one.detach().cpu().contiguous() for name, one in self._live_state().items()}

    def _live_state(self) -> State:
        return checkpoint.live_state(self._net, self._optimizer, self._average)

    def check_finite(self) -> None:
        """Raise TrainingError where a weight is not finite."""
        for name, tensor in self._net.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise self._diverged(f"the weight {name}")

    def finish(self, validation: Pool, drawn: NDArray[np.int64]) -> Fitted:
        """Return the final network (the moving average, if there is one) and its outputs."""
        self._net = self._average.module if self._average else self._net
        self.check_finite()
        chosen = novelty.sample(self._pool.images, self._pool.targets.numpy())
        pool_features, _ = self._features_and_logits(self._pool, chosen)
        features, logits = self._features_and_logits(validation, np.arange(len(validation.images)))
        if not bool(logits.isfinite().all()):
            raise self._diverged("an answer on a validation image")
        targets, classes = self._pool.targets[chosen], logits.shape[1]
        detector = NoveltyDetector.fit(pool_features, targets, classes)
        state = network.state_of(self._net, self._job.start, self._job.recipe.image_size_px)
        return Fitted(state, drawn, detector, features, logits)

    def _features_and_logits(
        self, pool: Pool, chosen: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        net = network.WithFeatures(self._inputs.trained_part(self._net))
        batches = np.split(chosen, range(network.BATCH, len(chosen), network.BATCH))
        inputs = (self._inputs.eval_batch(pool, batch) for batch in batches)
        return net.split(network.forward_batches(net, inputs, self._job.machine))

    def _diverged(self, what: str) -> TrainingError:
        update, updates, rate = self._at
        return TrainingError(
            f"Training stopped at update {update} of {updates}, at the learning rate {rate:.3g}: "
            f"{what} is no longer finite (NaN or infinite). Its result was discarded.",
            hint="in params.yaml, lower train.learning_rate (for example to a tenth); if it stops "
            "at update 1, check the weights that it starts from (origin.weights); with "
            "train.precision: bf16, try fp32; then dvc repro",
        )


class _Loss:
    """Cross-entropy with smoothed labels, and distillation if the recipe asks for it.

    Classes without images are left out of the cross-entropy, where every image would be evidence
    against them. A squared error keeps their logits near yesterday's, on the images there are (as
    Buzzega et al. 2020 replay logits).
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
            # Its frozen layers equal those of the network in training, so both have the same
            # inputs.
            self._teacher, self._known = inputs.trained_part(net).eval(), len(job.teacher.classes)

    def __call__(
        self, learner: torch.nn.Module, batch: torch.Tensor, chosen: NDArray[np.int64]
    ) -> torch.Tensor:
        """Return the loss of a batch, float32 []; `chosen` int64 [n] are its rows of the pool."""
        with self._machine.autocast():
            logits = learner(batch)
        seen = logits[:, self._seen] if self._unseen else logits
        loss = functional.cross_entropy(
            seen.float(), self._places[chosen], label_smoothing=LABEL_SMOOTHING, reduction="none"
        ).mean()
        if not self._teacher:
            return loss
        with torch.no_grad(), self._machine.autocast():
            teacher = self._teacher(batch).float()
        if self._unseen:
            gap = logits[:, self._unseen].float() - teacher[:, self._unseen]
            loss = loss + UNSEEN_WEIGHT * gap.square().mean()
        if self._distill:
            distance = self._distance(teacher, logits[:, : self._known].float())
            # New classes are left out, as the teacher does not know them.
            is_known = self._targets[chosen] < self._known
            loss = loss + self._distill * (distance * is_known).mean()
        return loss

    @staticmethod
    def _distance(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """Return each image's distillation loss on the classes that the teacher knows, float32 [n].

        T^2 KL(softmax(teacher / T) || softmax(student / T)): Hinton, Vinyals & Dean 2015, over the
        known classes only as in Li & Hoiem 2016 (learning without forgetting).
        """
        return DISTILL_TEMPERATURE**2 * functional.kl_div(
            functional.log_softmax(student / DISTILL_TEMPERATURE, dim=1),
            functional.log_softmax(teacher / DISTILL_TEMPERATURE, dim=1),
            reduction="none",
            log_target=True,
        ).sum(dim=1)
