"""dayfold beside what people would use instead: Avalanche's strategies on the same days of digits.

    pip install -r benchmarks/peers.txt
    python benchmarks/peers.py

Runs the stream "new classes" of benchmarks/streams.py through the default policy and through
Avalanche's Replay and Cumulative, one after another in one process, and prints ACC and seconds.

The same for all: images, start, AdamW with its rate and decay, label smoothing, the size of a
batch, precision, threads and seed; batches are normalised and changed at random by dayfold's
functions. Replay passes over a day's images as often as comes nearest to the updates that dayfold
makes, Cumulative as often over all images so far. Replay has a memory of as many images as dayfold
replays; to each batch of the day's images it adds one from there.

As Avalanche has it unless told otherwise: a constant rate, one optimizer for all days, images drawn
evenly, a memory shared evenly by the days. The head has a row for every class from the first day
on. An epoch leaves out what fills no batch: batch norms refuse a batch of one.

Seconds are of dayfold a whole day, from plans and files to the evaluation; of Avalanche training
and predicting the test images of all days so far, with every image decoded before.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import polars as pl
import streams
import torch
from torch.utils.data import TensorDataset

from dayfold import backtest
from dayfold.backtest import POLICIES, BacktestDays
from dayfold.figures import comparison
from dayfold.learning import adamw, device, fitting, network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.ledger import manifest
from dayfold.project.layout import Project
from dayfold.project.params import Params, Train

with warnings.catch_warnings():
    # They warn that there are no loggers and no solver, which nothing here needs.
    warnings.simplefilter("ignore")
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
    from avalanche.training import Cumulative, Replay
    from avalanche.training.determinism.rng_manager import RNGManager
    from avalanche.training.plugins import EvaluationPlugin

STREAM, SEED = "new classes", 0
Images = tuple[torch.Tensor, torch.Tensor]  # uint8 [n, 3, size, size], class ids int64 [n]


class Learner(torch.nn.Module):
    """The network for images as they are stored; while it learns it changes them."""

    def __init__(self, model: Model, recipe: Train, machine: Machine) -> None:
        super().__init__()
        self.net = network.build(model, recipe.image_size_px).to(machine.device)
        self._augment, self._machine = recipe.augment.model_dump(), machine

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 [n, 3, h, w] to logits, float32 [n, classes]."""
        batch = pixels.normalised(images)
        if self.training:
            fields = torch.rand(len(batch), 8, dtype=torch.float64).numpy()
            batch = pixels.augmented(batch, fields, **self._augment)
        with self._machine.autocast():
            logits: torch.Tensor = self.net(batch)
        return logits.float()


def loaded(
    history: BacktestDays, split: str, classes: Sequence[str], size: int
) -> Iterator[Images]:
    """The images of a split that arrived, day by day."""
    rows = manifest.history(history.project, history.days[-1]).split(split)
    for day in history.days:
        mine = rows.filter(pl.col("day") == day)
        paths, images = mine["path"].to_list(), mine["image"].to_list()
        targets = torch.tensor([classes.index(label) for label in mine["label"]])
        yield pixels.load(history.project.root, paths, images, size), targets


def by_avalanche(
    kind: type, history: BacktestDays, params: Params, machine: Machine, **options: object
) -> tuple[float, float]:
    """Run one of Avalanche's strategies; ACC and seconds. What dayfold does too is set alike."""
    recipe = params.train
    images = manifest.history(history.project, history.days[-1]).images
    classes = images["label"].unique().sort().to_list()
    train = [
        AvalancheDataset(
            [TensorDataset(*day)], data_attributes=[DataAttribute(day[1].tolist(), "targets")]
        )
        for day in loaded(history, "train", classes, recipe.image_size_px)
    ]
    test = list(loaded(history, "test", classes, recipe.image_size_px))
    RNGManager.set_random_seeds(params.seed)
    start = network.grown(network.load(history.origin), classes, params.seed)
    learner = Learner(start, recipe, machine)
    strategy = kind(
        model=learner,
        optimizer=torch.optim.AdamW(
            learner.parameters(), recipe.learning_rate, weight_decay=adamw.WEIGHT_DECAY
        ),
        criterion=torch.nn.CrossEntropyLoss(label_smoothing=fitting.LABEL_SMOOTHING),
        train_mb_size=recipe.batch_size,
        device=machine.device,
        evaluator=EvaluationPlugin(),
        **options,
    )
    began = time.perf_counter()
    for day, experience in enumerate(benchmark_from_datasets(train=train).train_stream):
        batches = max(len(experience.dataset) // recipe.batch_size, 1)
        strategy.train_epochs = max(round(recipe.updates / batches), 1)
        with warnings.catch_warnings(record=True):  # it calls what it will drop one day
            strategy.train(experience, drop_last=True)
        right = [
            (network.outputs(learner.net, cohort, machine).argmax(1) == targets).tolist()
            for cohort, targets in test[: day + 1]
        ]
    return fmean(map(fmean, right)), time.perf_counter() - began


def main() -> None:
    params = streams.params(STREAM, SEED)
    recipe = params.train
    machine = device.resolve(
        device=recipe.device, precision=recipe.precision, threads=recipe.threads
    )
    with tempfile.TemporaryDirectory() as name:
        history = streams.build(STREAM, SEED, Path(name) / "stream")
        began, scratch = time.perf_counter(), Project(Path(name) / "run")
        backtest.run_days(history, scratch, params, POLICIES["project"])
        seconds = time.perf_counter() - began
        run = comparison.summary(scratch, params, "project", SEED, history.days).run
        print(f"dayfold: ACC {run.average_accuracy:.3f}, {seconds:.0f} s", flush=True)
        for kind, options in ((Replay, {"mem_size": params.replay.size}), (Cumulative, {})):
            found, seconds = by_avalanche(kind, history, params, machine, **options)
            print(f"Avalanche's {kind.__name__}: ACC {found:.3f}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
