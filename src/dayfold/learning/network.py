"""A network whose head only grows, and its file."""

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import Linear

from dayfold import draws
from dayfold.errors import ModelError
from dayfold.learning import calibration, pixels
from dayfold.learning.device import Machine
from dayfold.learning.novelty import NoveltyDetector
from dayfold.learning.resnet import blank
from dayfold.project import vcs
from dayfold.project.files import canonical_json, write_bytes
from dayfold.project.params import NETWORK, named_network

BATCH = 256  # images predicted at a time
METADATA_KEY = "dayfold"
HEAD = ("fc.weight", "fc.bias")
NOVELTY = "known."  # prefix of the NoveltyDetector's tensors in the file
# The bias of a retired class's row. It makes the class's probability exactly 0 in any program that
# reads the file, and it is finite, so every product with it is defined.
RETIRED = -1e4

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A state dict of `network`, the classes of its head's rows in order, and all its metadata.

    `fc.weight` is float32 [len(classes), d], `fc.bias` float32 [len(classes)]. An origin and the
    models of older versions have no `novelty`.
    """

    state: State
    classes: tuple[str, ...]
    metadata: Mapping[str, Any]
    novelty: NoveltyDetector | None = None

    @property
    def network(self) -> str:
        return named_network(self.metadata)

    @property
    def retired(self) -> tuple[str, ...]:
        """The classes that have no images any more: their rows stay, and are never predicted."""
        gone = (self.state[HEAD[1]] == RETIRED).tolist()
        return tuple(name for name, is_gone in zip(self.classes, gone, strict=True) if is_gone)

    @property
    def live(self) -> tuple[str, ...]:
        """The classes that the model can predict, in order."""
        gone = self.retired
        return tuple(name for name in self.classes if name not in gone)

    @property
    def temperature(self) -> float:
        """The divisor of the logits; 1 for a model whose temperature was not fitted."""
        return float(self.metadata.get("temperature", 1.0))

    @property
    def calibration(self) -> str:
        """How confidence is calibrated: "calibrated with temperature 1.7", or why it is not."""
        if lacking := self.metadata.get("not_calibrated"):
            return f"not calibrated: {calibration.needed(lacking)}"
        on = self.metadata.get("calibrated_on")  # not recorded by older versions
        return f"calibrated with temperature {self.temperature:g}" + f" on {on}" * bool(on)

    def limit(self, share: float | None) -> float | str:
        """Return the distance above which an image is unknown, or why there is none."""
        if share is None:
            return "predict.known_share is null"
        if self.novelty is None:
            return f"the model of {self.metadata['day']} has no mean features of its classes"
        if lacking := self.metadata["no_limit"]:
            return str(lacking)
        return self.novelty.limit(share) or (
            f"{len(self.novelty.distances)} validation images are too few for a share of {share:g}"
        )

    @property
    def classes_with_means(self) -> frozenset[str]:
        """The classes whose mean features `novelty` knows."""
        rows = self.novelty.means.any(dim=1).tolist() if self.novelty else []
        return frozenset(name for name, is_seen in zip(self.live, rows, strict=False) if is_seen)


def build(model: Model, size: int) -> torch.nn.Module:
    """Return the network for images of one size: float32 [n, 3, size, size] → logits [n, classes].

    A convolution onto a single pixel keeps only the taps of its kernel that see more than padding:
    1 of 9 if its input is one pixel. With all taps, resnet18 would train a third as fast at 32 px;
    from 64 px on no map is that small. `state_of` puts the other taps back. Kernels are channels
    last, as images are.
    """
    network = blank(model.network, len(model.classes))
    state = dict(model.state)
    for name, taps in _used_taps(model.network, size).items():
        state[name] = state[name][taps]
        conv = _OntoOnePixel(torch.empty_like(state[name], device="meta"))
        network.set_submodule(name.removesuffix(".weight"), conv)
    orders = {4: torch.channels_last}
    copies = {
        name: tensor.clone(memory_format=orders.get(tensor.ndim, torch.contiguous_format))
        for name, tensor in state.items()
    }
    network.load_state_dict(copies, assign=True)
    return network


class _OntoOnePixel(torch.nn.Module):
    """A convolution whose kernel covers its whole input, computed as a matrix product.

    On a CPU at 16 px it takes a third of the time of oneDNN's convolution.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float [n, in, k, k] to [n, out, 1, 1]."""
        flat: torch.Tensor = torch.nn.functional.linear(images.flatten(1), self.weight.flatten(1))
        return flat[:, :, None, None]


def state_of(network: torch.nn.Module, model: Model, size: int) -> State:
    """Return the state dict of a network that `build` made of `model`, with full kernels.

    Taps that saw only padding were not trained: they are those of `model`.
    """
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    for name, taps in _used_taps(model.network, size).items():
        trained, state[name] = state[name], model.state[name].clone()
        state[name][taps] = trained
    return state


@cache
def _used_taps(network: str, size: int) -> dict[str, tuple[slice, ...]]:
    """Return, for every 3 x 3 kernel onto a single pixel, the part that sees the image.

    The map sizes are computed by hand: a forward pass on the meta device would import
    torch._dynamo, which takes 3 s of CPU.
    """
    taps: dict[str, tuple[slice, ...]] = {}
    side = math.ceil(size / 4)  # of the map after conv1 and maxpool
    for name, conv in blank(network).named_modules():
        if isinstance(conv, torch.nn.Conv2d) and conv.kernel_size == (3, 3):
            side_after = math.ceil(side / conv.stride[0])
            if side_after == 1:  # from a map of one or two pixels a side, padded by 1
                seen = slice(1, 1 + side)
                taps[f"{name}.weight"] = (slice(None), slice(None), seen, seen)
            side = side_after
    return taps


def grown(
    model: Model, newcomers: Sequence[str], seed: int, *, like: Mapping[str, str] | None = None
) -> Model:
    """Return the model with a row for each new class at the end of its head.

    Known rows keep their bits. A new row is drawn from U(-b, b) with b = 1/sqrt(d) (torch's initial
    values of a linear layer), keyed by the class's name; its bias is 0. `like` maps a class to
    another one whose row it copies instead. A retired class gets the bias 0 again, or the copy that
    `like` names.
    """
    weight, bias = (model.state[name] for name in HEAD)
    shape, bound = (1, weight.shape[1]), 1 / math.sqrt(weight.shape[1])
    drawn = [draws.uniform_array("head", seed, name, shape=shape) * bound for name in newcomers]
    weight = torch.cat([weight, *(torch.from_numpy(row).float() for row in drawn)])
    bias = torch.cat([bias, torch.zeros(len(newcomers))])
    classes = (*model.classes, *newcomers)
    ids = {name: at for at, name in enumerate(classes)}
    bias[[ids[name] for name in model.retired]] = 0
    for name in (*model.retired, *newcomers):
        if (other := (like or {}).get(name)) in model.classes:
            weight[ids[name]], bias[ids[name]] = weight[ids[other]], bias[ids[other]]
    return Model({**model.state, HEAD[0]: weight, HEAD[1]: bias}, classes, model.metadata)


def drop_classes(model: Model, retired: Collection[str]) -> Model:
    """Return the model without the rows of these classes, for training and distillation.

    Retired classes have no images, but their logits would take part in every softmax.
    """
    rows = [row for row, name in enumerate(model.classes) if name not in retired]
    if len(rows) == len(model.classes):
        return model
    state = {**model.state, **{name: model.state[name][rows] for name in HEAD}}
    return Model(state, tuple(model.classes[row] for row in rows), model.metadata)


def restore_classes(state: State, full: Model, retired: Collection[str]) -> State:
    """Return a state dict trained after `drop_classes`, with the dropped rows of `full` restored.

    So the row of a class never moves. The bias RETIRED keeps these classes from being predicted.
    """
    rows = [row for row, name in enumerate(full.classes) if name not in retired]
    weight, bias = (full.state[name].clone() for name in HEAD)
    bias[:] = RETIRED
    weight[rows], bias[rows] = (state[name] for name in HEAD)
    return {**state, HEAD[0]: weight, HEAD[1]: bias}


def random_origin(seed: int, network: str = NETWORK) -> Model:
    """Return a network of random weights with an empty head: the same bytes everywhere.

    Convolutions are drawn from U(-b, b) with the variance 2 / fan_out of He et al. 2015, which
    torchvision draws from a normal distribution; batch norms start at 1 and 0.
    """
    state: State = {}
    for name, start in blank(network).state_dict().items():
        if start.ndim == 4:
            out, _, height, width = start.shape
            bound = math.sqrt(6 / (out * height * width))
            values = draws.uniform_array("origin", seed, name, shape=start.shape) * bound
            state[name] = torch.from_numpy(values).float()
        elif name not in HEAD:
            ones = name.endswith(("weight", "running_var"))
            state[name] = (torch.ones if ones else torch.zeros)(start.shape, dtype=start.dtype)
    metadata = {"classes": [], "day": "origin", "made": "random", "network": network}
    return Model(with_empty_head(state, network), (), metadata)


def with_empty_head(body: State, network: str) -> State:
    features = blank(network).fc.in_features
    return {**body, HEAD[0]: torch.zeros(0, features), HEAD[1]: torch.zeros(0)}


def save(
    path: Path, state: State, metadata: Mapping[str, Any], novelty: NoveltyDetector | None = None
) -> None:
    """Write a model atomically, with all metadata as canonical JSON under one key.

    With several keys safetensors would write them in a different order in every process. `network`
    is left out for resnet18, which used to be the only one.
    """
    stored = {key: value for key, value in metadata.items() if (key, value) != ("network", NETWORK)}
    extra = {f"{NOVELTY}{name}": one for name, one in vars(novelty).items()} if novelty else {}
    every = sorted({**state, **extra}.items())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in every}
    write_bytes(path, safetensors.torch.save(tensors, {METADATA_KEY: canonical_json(stored)}))


def load(path: Path, days: Sequence[str] = ()) -> Model:
    """Read a model that `save` wrote.

    Raises ModelError if it is missing, not a model of dayfold's, or not of one of `days`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            classes = tuple(metadata["classes"])
            extra = [name for name in state if name.startswith(NOVELTY)]
            novelty = {name.removeprefix(NOVELTY): state.pop(name) for name in extra}
    except FileNotFoundError:
        what = f"{os.path.relpath(path)} is not here yet."
        raise ModelError(what, hint=vcs.TO_FETCH) from None
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        what = f"{path} is not a dayfold model: {error}"
        raise ModelError(what, hint="dvc checkout --force") from None
    if days and metadata["day"] not in days:
        what = f"{os.path.relpath(path)} is the model of {metadata['day']}, not of {days[0]}."
        raise ModelError(what, hint="dayfold status says what to do first")
    return Model(state, classes, metadata, NoveltyDetector(**novelty) if novelty else None)


class WithFeatures(torch.nn.Module):
    """A network, or its last layers, that returns features and logits as one tensor."""

    def __init__(self, learner: torch.nn.Module) -> None:
        super().__init__()
        *body, head = learner.children()
        self.body, self.head = torch.nn.Sequential(*body, torch.nn.Flatten()), cast(Linear, head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float [n, d + classes]."""
        features = self.body(images)
        return torch.cat([features, self.head(features)], dim=1)

    def split(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features [n, d] and the logits [n, classes] of its outputs."""
        count = self.head.in_features
        return outputs[:, :count], outputs[:, count:]


def outputs(
    net: torch.nn.Module, images: torch.Tensor, machine: Machine, *, batch_size: int = BATCH
) -> torch.Tensor:
    """Return a network's outputs on images: uint8 [n, 3, h, w] → float32 [n, outputs]."""
    parts = torch.split(images, batch_size)
    batches = (pixels.normalised(part.to(machine.device)) for part in parts)
    return forward_batches(net, batches, machine)


def forward_batches(
    net: torch.nn.Module, batches: Iterable[torch.Tensor], machine: Machine
) -> torch.Tensor:
    """Return a network's outputs on batches of its inputs: float32 [n, outputs]."""
    net.eval()
    with torch.inference_mode(), machine.autocast():
        return torch.cat([net(batch).float().cpu() for batch in batches])
