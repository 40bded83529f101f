"""Checkpoints: a stopped training goes on.

Every two minutes what changes from one update to the next is written beside the project, in a file
named by a digest of all that the training depends on. The environment may set another interval: no
bit depends on it, so it is no param.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch.optim.swa_utils import AveragedModel

from dayfold.learning.adamw import AdamW
from dayfold.learning.network import State
from dayfold.learning.parallel import Team
from dayfold.ledger.tables import TrainingStep
from dayfold.project.files import canonical_json, sha256, with_digest, without_digest, write_bytes

FORMAT = 3  # of the file and of what `changing` names
INTERVAL = "DAYFOLD_CHECKPOINT_SECONDS"
OTHERS_KEPT = 2  # checkpoints of other inputs: an experiment that one may come back to


class Saved(NamedTuple):
    """A training after some updates: what each came to, its state, the seconds they took."""

    steps: list[TrainingStep]
    state: State
    seconds: float


def changing(net: torch.nn.Module, optimizer: AdamW, average: AveragedModel | None) -> State:
    """Return all that changes from one update to the next: the very tensors, by name."""
    # Draws have no state: which images come next is a function of the update's number.
    parts = {"net": net.state_dict(), "optimizer": optimizer.state()}
    parts |= {"average": average.state_dict()} if average else {}
    return {f"{part}.{name}": tensor for part, own in parts.items() for name, tensor in own.items()}


class Keeper:
    """The checkpoint of one training: a file named by a digest of all that the training takes."""

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        name = sha256(canonical_json({"format": FORMAT, **inputs}).encode())[:32]
        self._path = folder / f"{name}.checkpoint"
        self._every_seconds = float(os.environ.get(INTERVAL, "120"))
        self._began = self._kept = time.monotonic()
        self._before = 0.0

    def found(self, team: Team) -> Saved | None:
        """Return what an earlier process left of this very training, in all processes of a team."""
        data = team.share(self._whole() if team.leads else b"")
        if not data:
            return None
        saved = read(data)
        self._before = saved.seconds
        return saved

    def _whole(self) -> bytes:
        # Of what other trainings left the newest few stay; the trainer's lock is held.
        others = [path for path in self._path.parent.glob("*") if path != self._path]
        whole = [path for path in others if path.suffix == self._path.suffix]
        kept = sorted(whole, key=lambda path: path.stat().st_mtime)[-OTHERS_KEPT:]
        for path in {*others} - {*kept}:
            path.unlink()
        try:
            data = self._path.read_bytes()
            without_digest(data)
        except FileNotFoundError:
            return b""
        except ValueError as error:
            _say(f"the checkpoint {self._path.name} {error}; training begins anew")
            self._path.unlink()
            return b""
        return data

    def keep(self, steps: Sequence[TrainingStep], state: Callable[[], State]) -> None:
        """Write the training after these updates, if it is time; a full disk stops nothing."""
        if time.monotonic() - self._kept < self._every_seconds:
            return
        try:
            write_bytes(self._path, made(Saved([*steps], state(), self.seconds())))
        except OSError as error:
            _say(f"no checkpoint: {error.strerror}: {self._path}; training goes on")
        self._kept = time.monotonic()

    def seconds(self) -> float:
        """Return how long the training has taken, with what an earlier process put into it."""
        return self._before + time.monotonic() - self._began

    def remove(self) -> None:
        """Remove the checkpoint, if there is one."""
        self._path.unlink(missing_ok=True)


def made(saved: Saved) -> bytes:
    """Return a checkpoint's bytes: the sha256 of the rest on a line, then safetensors."""
    # float64 holds each number exactly.
    numbers = {"steps": saved.steps, "seconds": saved.seconds}
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return with_digest(safetensors.torch.save({**saved.state, **tensors}))


def read(data: bytes) -> Saved:
    """Read a checkpoint's bytes; ValueError where they are damaged."""
    state = safetensors.torch.load(without_digest(data))
    steps = [
        TrainingStep(int(number), int(epoch), loss, rate)
        for number, epoch, loss, rate in state.pop("steps").tolist()
    ]
    seconds: float = state.pop("seconds").item()
    return Saved(steps, state, seconds)


def _say(text: str) -> None:
    print(f"dayfold: {text}", file=sys.stderr, flush=True)
