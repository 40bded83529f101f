"""Checkpoints: a training that was stopped goes on, to the bits of one that was not.

Every two minutes what changes from one update to the next is written beside the project, in a file
named by a digest of all that the training depends on. DAYFOLD_CHECKPOINT_SECONDS sets another
interval: no bit depends on it, so it is no param.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.optim.swa_utils import AveragedModel

from dayfold.learning.network import METADATA_KEY, State
from dayfold.ledger.tables import TrainingStep
from dayfold.project.files import (
    canonical_json,
    sha256,
    with_digest,
    without_digest,
    write_bytes,
)

FORMAT = 1  # of the file and of what `gather` puts into it
SECONDS = float(os.environ.get("DAYFOLD_CHECKPOINT_SECONDS", "120"))
OTHERS_KEPT = 2  # checkpoints of other inputs: an experiment that one may come back to


@dataclass(frozen=True)
class Saved:
    """A training after `update` updates: what they came to, its state, the seconds it took."""

    update: int
    steps: list[TrainingStep]
    state: State
    seconds: float


def gather(
    net: torch.nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None
) -> State:
    """Return all that changes from one update to the next as tensors by name, on the CPU.

    Draws have no state: which images come next is a function of the update's number.
    """
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    if average:
        state |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def scatter(
    state: State,
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
) -> None:
    """Put what `gather` returned back: to the bit, and in the memory format of the parameters."""
    net.load_state_dict(_under("net.", state))
    if average:
        average.load_state_dict(_under("average.", state))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, State] = {}
    for name, tensor in _under("optimizer.", state).items():
        number, _, kind = name.partition(".")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        moments.setdefault(int(number), {})[kind] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _under(prefix: str, state: State) -> State:
    return {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}


class Keeper:
    """The checkpoint of one training: a file named by a digest of all that the training takes."""

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        self._inputs = sha256(canonical_json({"format": FORMAT, **inputs}).encode())
        self._path = folder / f"{self._inputs[:32]}.checkpoint"
        self._began = self._kept = time.monotonic()
        self._before = 0.0

    def found(self) -> bytes:
        """Return what an earlier process left of this very training, if it is whole; else nothing.

        A damaged file, or one of other inputs under this name, is removed with a word.
        """
        self._remove_others()
        try:
            data = self._path.read_bytes()
            read(data, self._inputs)
        except FileNotFoundError:
            return b""
        except ValueError as error:
            _say(f"the checkpoint {self._path.name} {error}; training begins anew")
            self._path.unlink()
            return b""
        return data

    def going_on(self, data: bytes) -> Saved | None:
        """Return the training that was found, to go on with; None where nothing was."""
        if not data:
            return None
        saved = read(data, self._inputs)
        self._before = saved.seconds
        return saved

    def keep(self, update: int, steps: Sequence[TrainingStep], state: Callable[[], State]) -> None:
        """Write the training after `update` updates, if it is time; a full disk stops nothing."""
        if time.monotonic() - self._kept < SECONDS:
            return
        saved = Saved(update, [*steps], state(), self.seconds())
        try:
            write_bytes(self._path, made(saved, self._inputs))
        except OSError as error:
            _say(f"no checkpoint: {error.strerror}: {self._path}; training goes on")
        self._kept = time.monotonic()

    def seconds(self) -> float:
        """Return how long the training has taken, with what an earlier process put into it."""
        return self._before + time.monotonic() - self._began

    @contextmanager
    def removed_on(self, kind: type[Exception]) -> Iterator[None]:
        """Remove the checkpoint where the body raises such an error: none is to go on from it."""
        try:
            yield
        except kind:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the checkpoint, if there is one."""
        self._path.unlink(missing_ok=True)

    def _remove_others(self) -> None:
        """Remove what other trainings left, but for the newest few. The trainer's lock is held."""
        folder = self._path.parent
        others = [path for path in folder.glob("*") if path != self._path]
        whole = [path for path in others if path.suffix == self._path.suffix]
        kept = sorted(whole, key=lambda path: path.stat().st_mtime)[-OTHERS_KEPT:]
        for path in {*others} - {*kept}:
            path.unlink()


def made(saved: Saved, inputs: str) -> bytes:
    """Return a checkpoint's bytes: the sha256 of the rest on a line, then safetensors."""
    tensors = {
        **saved.state,
        # float64 holds each number exactly.
        "steps": torch.tensor(saved.steps, dtype=torch.float64).view(-1, len(TrainingStep._fields)),
    }
    facts = {"inputs": inputs, "update": saved.update, "seconds": saved.seconds}
    data = safetensors.torch.save(tensors, {METADATA_KEY: canonical_json(facts)})
    return with_digest(data)


def read(data: bytes, inputs: str) -> Saved:
    """Read a checkpoint's bytes; ValueError says what is wrong with them."""
    data = without_digest(data)
    try:
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][METADATA_KEY])
        tensors = safetensors.torch.load(data)
        steps = tensors.pop("steps").tolist()
        if facts["inputs"] == inputs:
            return Saved(
                facts["update"], [_step(*step) for step in steps], tensors, facts["seconds"]
            )
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise ValueError("is no checkpoint of dayfold's") from None
    raise ValueError("is of another training")


def _step(step: float, epoch: float, loss: float, rate: float) -> TrainingStep:
    return TrainingStep(int(step), int(epoch), loss, rate)


def _say(text: str) -> None:
    print(f"dayfold: {text}", file=sys.stderr, flush=True)
