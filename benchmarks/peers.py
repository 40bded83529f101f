"""dayfold beside what people would use instead: Avalanche's strategies on the same days of digits.

    pip install -r benchmarks/peers.txt
    python benchmarks/peers.py [--stream "new classes"] [--seeds 1] [--days 15]

Runs a stream of benchmarks/streams.py through the default policy and through Avalanche's Replay
and Cumulative, one after another in one process, and prints them side by side.

The same for all: the training and test images, the start (the origin's ResNet18, in its form for
16 px), AdamW with its rate and decay, label smoothing, the size of a batch, precision, threads and
seed. Avalanche's batches too are normalised and changed at random by dayfold's functions, a batch
at once: torchvision's transforms take longer, image by image. Predictions and figures come from the
same functions.

The same epochs: Replay passes over a day's images as often as comes nearest to the updates that
dayfold makes, Cumulative as often over all images so far. Replay has a memory of as many
images as dayfold replays; to each batch of the day's images it adds one from there, so that after
the first day it draws twice as many.

As Avalanche has it unless told otherwise: a constant rate (dayfold's rises, then falls to 0), one
optimizer for all days, images drawn evenly, a memory shared evenly by the days. The head has a row
for every class from the first day on. An epoch leaves out what fills no batch: batch norms refuse a
batch of one.

Seconds: of dayfold a whole day, from the plans over reading, checking and decoding its files,
training, validation, calibration and writing the model to the evaluation. Of Avalanche training and
predicting the test images, with every image decoded before.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import streams
import torch
from sklearn.metrics import f1_score
from torch.utils.data import TensorDataset

from dayfold import backtest
from dayfold.backtest import POLICIES, BacktestDays
from dayfold.figures import comparison
from dayfold.figures.retention import Counts, figures
from dayfold.learning import adamw, device, fitting, network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.ledger import manifest
from dayfold.ledger.tables import BacktestRun
from dayfold.project.console import Ticker, show
from dayfold.project.layout import Project
from dayfold.project.params import Params, Train

# They warn that there are no loggers and no solver, which nothing here needs.
warnings.filterwarnings("ignore", module="avalanche|qpsolvers")
try:
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
    from avalanche.training import Cumulative, Replay
    from avalanche.training.determinism.rng_manager import RNGManager
    from avalanche.training.plugins import EvaluationPlugin
except ModuleNotFoundError as missing:
    print(f"{missing.name} is missing: pip install -r benchmarks/peers.txt", file=sys.stderr)
    raise SystemExit(2) from None

DAYFOLD = "dayfold"
STRATEGIES: dict[str, Callable[..., Any]] = {
    "Avalanche Replay": Replay,
    "Avalanche Cumulative": Cumulative,
}
Images = tuple[torch.Tensor, torch.Tensor]  # uint8 [n, 3, size, size], class ids int64 [n]


class Learner(torch.nn.Module):
    """The network for images as they are stored; while it learns it changes and counts them."""

    def __init__(self, model: Model, recipe: Train, machine: Machine) -> None:
        super().__init__()
        self.net = network.build(model, recipe.image_size_px).to(machine.device)
        self.draws = 0
        self._augment, self._machine = recipe.augment.model_dump(), machine

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 [n, 3, h, w] to logits, float32 [n, classes]."""
        batch = pixels.normalised(images)
        if self.training:
            self.draws += len(batch)
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


def by_dayfold(
    history: BacktestDays, folder: Path, params: Params, tick: Callable[[], None]
) -> BacktestRun:
    """Run the default policy over a stream."""
    scratch = Project(folder)
    began = time.perf_counter()
    backtest.run_days(history, scratch, params, POLICIES["project"], tick=tick)
    seconds = time.perf_counter() - began
    run = comparison.summary(scratch, params, DAYFOLD, params.seed, history.days).run
    return run._replace(seconds=round(seconds, 1))


def by_avalanche(
    name: str, history: BacktestDays, params: Params, machine: Machine, tick: Callable[[], None]
) -> BacktestRun:
    """Run one of Avalanche's strategies over a stream; what dayfold does too is set alike."""
    recipe, days = params.train, len(history.days)
    images = manifest.history(history.project, history.days[-1]).images
    classes = images["label"].unique().sort().to_list()
    train = loaded(history, "train", classes, recipe.image_size_px)
    test = list(loaded(history, "test", classes, recipe.image_size_px))
    experiences = benchmark_from_datasets(
        train=[
            AvalancheDataset(
                [TensorDataset(*day)], data_attributes=[DataAttribute(day[1].tolist(), "targets")]
            )
            for day in train
        ]
    ).train_stream
    RNGManager.set_random_seeds(params.seed)
    start = network.grown(network.load(history.origin), classes, params.seed)
    learner = Learner(start, recipe, machine)
    strategy = STRATEGIES[name](
        model=learner,
        optimizer=torch.optim.AdamW(
            learner.parameters(), recipe.learning_rate, weight_decay=adamw.WEIGHT_DECAY
        ),
        criterion=torch.nn.CrossEntropyLoss(label_smoothing=fitting.LABEL_SMOOTHING),
        train_mb_size=recipe.batch_size,
        device=machine.device,
        evaluator=EvaluationPlugin(),
        **({"mem_size": params.replay.size} if STRATEGIES[name] is Replay else {}),
    )
    right, asked = np.zeros((2, days, days))
    seconds = 0.0
    for day, experience in enumerate(experiences):
        began = time.perf_counter()
        batches = max(len(experience.dataset) // recipe.batch_size, 1)
        strategy.train_epochs = max(round(recipe.updates / batches), 1)
        with warnings.catch_warnings(record=True):  # it calls what it will drop one day
            strategy.train(experience, drop_last=True)
        predicted = [
            network.outputs(learner.net, cohort, machine).argmax(1) for cohort, _ in test[: day + 1]
        ]
        seconds += time.perf_counter() - began
        for cohort, (said, (_, targets)) in enumerate(zip(predicted, test, strict=False)):
            right[day, cohort], asked[day, cohort] = int((said == targets).sum()), len(targets)
        tick()
    truth = torch.cat([targets for _, targets in test])
    unknown: dict[str, Any] = dict.fromkeys(BacktestRun._fields)
    known = {
        "policy": name,
        "seed": params.seed,
        "weighted_f1": f1_score(truth, torch.cat(predicted), average="weighted", zero_division=0),
        "draws": learner.draws,
        "seconds": round(seconds, 1),
    }
    return BacktestRun(**{**unknown, **figures(Counts(right, asked))[0], **known})


def main() -> None:
    """Run all three on every seed, in a temporary folder, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stream", choices=tuple(streams.ALL), default="new classes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--days", type=int, default=15, choices=range(2, 16), metavar="N")
    options = parser.parse_args()
    runs = []
    with (
        tempfile.TemporaryDirectory() as name,
        Ticker("peers", options.seeds * (1 + len(STRATEGIES)) * options.days, "days") as ticker,
    ):
        for seed in range(options.seeds):
            folder = Path(name) / str(seed)
            params = streams.params(options.stream, seed)
            recipe = params.train
            machine = device.resolve(
                device=recipe.device, precision=recipe.precision, threads=recipe.threads
            )
            whole = streams.build(options.stream, params, folder / "stream")
            history = replace(whole, days=whole.days[: options.days])
            tick = partial(ticker.advance, 1)
            runs.append(by_dayfold(history, folder / "run", params, tick))
            runs += [by_avalanche(who, history, params, machine, tick) for who in STRATEGIES]
    print(
        f"{options.stream}, {options.days} days, {options.seeds} seeds, "
        f"{recipe.updates} updates of {recipe.batch_size} at {recipe.image_size_px} px, "
        f"{machine.threads} threads, {machine.precision}"
    )
    show(comparison.table([*map(comparison.Result, runs)], options.days))


if __name__ == "__main__":
    main()
