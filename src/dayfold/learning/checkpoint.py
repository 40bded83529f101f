"""Checkpoints: an interrupted training goes on.

Every two minutes all that an update changes is written outside the stage's outputs, into a file
named by a digest of the training's inputs. The interval is an environment variable and no param,
because no bit of the model depends on it.
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

FORMAT = 3  # version of the file format, with the names of `live_state`
INTERVAL = "DAYFOLD_CHECKPOINT_SECONDS"
OTHERS_KEPT = 2  # other checkpoints kept, as a person may come back to an experiment


class Saved(NamedTuple):
    """A training after some updates: these updates, the state, the seconds they took."""

    steps: list[TrainingStep]
    state: State
    seconds: float


def live_state(net: torch.nn.Module, optimizer: AdamW, average: AveragedModel | None) -> State:
    """Return all tensors that an update changes, by name; they are not copies."""
    # Draws have no state: the next images are a function of the update's number.
    parts = {"net": net.state_dict(), "optimizer": optimizer.state()}
    parts |= {"average": average.state_dict()} if average else {}
    return {f"{part}.{name}": tensor for part, own in parts.items() for name, tensor in own.items()}


class CheckpointFile:
    """The checkpoint of one training, in a file named by a digest of the training's inputs."""

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        name = sha256(canonical_json({"format": FORMAT, **inputs}).encode())[:32]
        self._path = folder / f"{name}.checkpoint"
        self._every_seconds = float(os.environ.get(INTERVAL, "120"))
        self._began = self._saved = time.monotonic()
        self._before = 0.0

    def load(self, team: Team) -> Saved | None:
        """Return what an earlier process saved of this training, in all processes of a team."""
        data = team.broadcast(self._read_intact() if team.is_first else b"")
        if not data:
            return None
        saved = from_bytes(data)
        self._before = saved.seconds
        return saved

    def _read_intact(self) -> bytes:
        # The trainer's lock is held, so no other training uses its checkpoint now.
        others = [path for path in self._path.parent.glob("*") if path != self._path]
        complete = [path for path in others if path.suffix == self._path.suffix]
        newest = sorted(complete, key=lambda path: path.stat().st_mtime)[-OTHERS_KEPT:]
        for path in {*others} - {*newest}:
            path.unlink()
        try:
            data = self._path.read_bytes()
            without_digest(data)
        except FileNotFoundError:
            return b""
        except ValueError as error:
            _say(f"the checkpoint {self._path.name} {error}; training starts again")
            self._path.unlink()
            return b""
        return data

    def save_if_due(self, steps: Sequence[TrainingStep], state: Callable[[], State]) -> None:
        """Write the state after these updates if it is time; on a full disk training goes on."""
        if time.monotonic() - self._saved < self._every_seconds:
            return
        try:
            write_bytes(self._path, to_bytes(Saved([*steps], state(), self.seconds())))
        except OSError as error:
            _say(f"no checkpoint: {error.strerror}: {self._path}; training goes on")
        self._saved = time.monotonic()

    def seconds(self) -> float:
        """Return how long the training has taken, in this and earlier processes."""
        return self._before + time.monotonic() - self._began

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def to_bytes(saved: Saved) -> bytes:
    """Return a checkpoint as bytes: a line with the sha256 of the rest, then safetensors."""
    # float64 holds each number exactly.
    numbers = {"steps": saved.steps, "seconds": saved.seconds}
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return with_digest(safetensors.torch.save({**saved.state, **tensors}))


def from_bytes(data: bytes) -> Saved:
    """Read a checkpoint; raise ValueError if the bytes are damaged."""
    state = safetensors.torch.load(without_digest(data))
    steps = [
        TrainingStep(int(number), int(epoch), loss, rate)
        for number, epoch, loss, rate in state.pop("steps").tolist()
    ]
    seconds: float = state.pop("seconds").item()
    return Saved(steps, state, seconds)


def _say(text: str) -> None:
    print(f"dayfold: {text}", file=sys.stderr, flush=True)
