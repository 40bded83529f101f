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
from dayfold.learning import pixels
from dayfold.learning.device import Machine
from dayfold.learning.resnet import blank
from dayfold.learning.unknown import Known
from dayfold.project.files import canonical_json, write_bytes
from dayfold.project.params import NETWORK, named_network

BATCH = 256  # images predicted at a time
METADATA_KEY = "dayfold"
HEAD = ("fc.weight", "fc.bias")
KNOWN = "known."  # before the names of the tensors that are `Known`, and no weights
# The bias of a retired class's row: its probability is 0 to the last bit, in any program that reads
# the file; and finite, so that no product with it is undefined.
RETIRED = -1e4

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A state dict of `network`, the classes of its head's rows in order, and all its metadata.

    `fc.weight` is float32 [len(classes), d], `fc.bias` float32 [len(classes)]. `known` is None of
    an origin, and of the models of older versions.
    """

    state: State
    classes: tuple[str, ...]
    metadata: Mapping[str, Any]
    known: Known | None = None

    @property
    def network(self) -> str:
        """Which network it is, as in `origin.network`."""
        return named_network(self.metadata)

    @property
    def retired(self) -> tuple[str, ...]:
        """The classes whose rows are kept for their places only: never predicted."""
        gone = (self.state[HEAD[1]] == RETIRED).tolist()
        return tuple(name for name, is_gone in zip(self.classes, gone, strict=True) if is_gone)

    @property
    def live(self) -> tuple[str, ...]:
        """The classes that the model can answer with, in order."""
        gone = self.retired
        return tuple(name for name in self.classes if name not in gone)

    @property
    def temperature(self) -> float:
        """By what logits are divided; 1 for a model whose temperature was not fitted."""
        return float(self.metadata.get("temperature", 1.0))

    @property
    def calibration(self) -> str:
        """Whether confidence is calibrated: "calibrated with temperature 1.7", or why not."""
        if lacking := self.metadata.get("not_calibrated"):
            return f"not calibrated: {lacking}"
        on = self.metadata.get("calibrated_on")  # which older versions did not record
        return f"calibrated with temperature {self.temperature:g}" + f" on {on}" * bool(on)

    def limit(self, share: float | None) -> float | str:
        """Return the distance above which an image is unknown, or why there is none.

        `share` is `predict.known_share`.
        """
        if share is None:
            return "predict.known_share is null"
        if self.known is None:
            return f"the model of {self.metadata['day']} has no means of its classes"
        if lacking := self.metadata["no_limit"]:
            return str(lacking)
        return self.known.limit(share) or (
            f"{len(self.known.distances)} validation images are too few for a share of {share:g}"
        )

    @property
    def seen(self) -> frozenset[str]:
        """The classes that it has means of."""
        rows = self.known.means.any(dim=1).tolist() if self.known else []
        return frozenset(name for name, is_seen in zip(self.live, rows, strict=False) if is_seen)


def build(model: Model, size: int) -> torch.nn.Module:
    """Return the network for images of one size: float32 [n, 3, size, size] → logits [n, classes].

    Convolutions onto a single pixel have the taps of their kernels that see more than padding, and
    no others: where a map has shrunk to one pixel these are 1 of 9. With them all, resnet18 would
    train a third as fast at 32 px; from 64 px on no map is that small. `state_of` puts the others
    back. Kernels lie in memory as images do, channels last.
    """
    network = blank(model.network, len(model.classes))
    state = dict(model.state)
    for name, kept in _taps(model.network, size).items():
        weight = f"{name}.weight"
        state[weight] = state[weight][kept]
        network.set_submodule(name, _OntoOnePixel(torch.empty_like(state[weight], device="meta")))
    orders = {4: torch.channels_last}
    copies = {
        name: tensor.clone(memory_format=orders.get(tensor.ndim, torch.contiguous_format))
        for name, tensor in state.items()
    }
    network.load_state_dict(copies, assign=True)
    return network


class _OntoOnePixel(torch.nn.Module):
    """A convolution whose kernel covers its whole input, as the matrix product that it is.

    At 16 px on a CPU that takes a third of the time of oneDNN's convolution.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float [n, in, k, k] to [n, out, 1, 1]."""
        made: torch.Tensor = torch.nn.functional.linear(images.flatten(1), self.weight.flatten(1))
        return made[:, :, None, None]


def state_of(network: torch.nn.Module, model: Model, size: int) -> State:
    """Return the state dict of a network that `build` made of `model`, with whole kernels.

    Taps that saw padding only learnt nothing: they are those of `model`.
    """
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    for name, kept in _taps(model.network, size).items():
        weight = f"{name}.weight"
        whole = model.state[weight].clone()
        whole[kept] = state[weight]
        state[weight] = whole
    return state


@cache
def _taps(network: str, size: int) -> dict[str, tuple[slice, ...]]:
    """The part of the kernel that sees the image, of every 3 x 3 one onto a single pixel.

    By arithmetic: a pass of meta tensors would import torch._dynamo, 3 s of a CPU.
    """
    kept: dict[str, tuple[slice, ...]] = {}
    side = math.ceil(size / 4)  # of what conv1 and maxpool make of an image
    for name, conv in blank(network).named_modules():
        if isinstance(conv, torch.nn.Conv2d) and conv.kernel_size == (3, 3):
            made = math.ceil(side / conv.stride[0])
            if made == 1:  # of a map of one or two pixels a side, padded by 1
                seen = slice(1, 1 + side)
                kept[name] = (slice(None), slice(None), seen, seen)
            side = made
    return kept


def grown(
    model: Model, newcomers: Sequence[str], seed: int, *, like: Mapping[str, str] | None = None
) -> Model:
    """Return the model with a row for each new class at the end of its head.

    Known rows stay as they are, to the bit. A new row is a draw from U(-b, b), b = 1/sqrt(d)
    (torch's own start of a linear layer) keyed by the class's name, its bias is 0; or, of a class
    in `like`, a copy of that other class's row. A row that was retired has the bias 0 again; of a
    class in `like`, whose old name comes back, it is a copy too.
    """
    weight, bias = (model.state[name].clone() for name in HEAD)
    ids = {name: at for at, name in enumerate(model.classes)}
    sources = {name: ids[other] for name, other in (like or {}).items() if other in ids}
    for name in model.retired:
        bias[ids[name]] = 0
    for name in model.retired:
        if name in sources:
            weight[ids[name]], bias[ids[name]] = weight[sources[name]], bias[sources[name]]
    features = weight.shape[1]
    rows, biases, bound = [weight], [bias], 1 / math.sqrt(features)
    for name in newcomers:
        if name in sources:
            rows.append(weight[[sources[name]]])
            biases.append(bias[[sources[name]]])
        else:
            drawn = draws.uniform_array("head", seed, name, shape=(1, features)) * bound
            rows.append(torch.from_numpy(drawn).float())
            biases.append(torch.zeros(1))
    state = {**model.state, HEAD[0]: torch.cat(rows), HEAD[1]: torch.cat(biases)}
    return Model(state, (*model.classes, *newcomers), model.metadata)


def without(model: Model, retired: Collection[str]) -> Model:
    """Return the model without the rows of these classes: to train, and to be asked, on the others.

    Their logits would take part in every softmax, and no image would ever speak for them.
    """
    kept = [at for at, name in enumerate(model.classes) if name not in retired]
    if len(kept) == len(model.classes):
        return model
    state = {**model.state, **{name: model.state[name][kept] for name in HEAD}}
    return Model(state, tuple(model.classes[at] for at in kept), model.metadata)


def with_retired(state: State, whole: Model, retired: Collection[str]) -> State:
    """Return a state dict trained `without` some classes, with their rows of `whole` put back.

    They keep their places, so that a class's row is the same one for ever; the bias RETIRED keeps
    them from being predicted.
    """
    kept = [at for at, name in enumerate(whole.classes) if name not in retired]
    if len(kept) == len(whole.classes):
        return state
    weight, bias = (whole.state[name].clone() for name in HEAD)
    bias[:] = RETIRED
    weight[kept], bias[kept] = (state[name] for name in HEAD)
    return {**state, HEAD[0]: weight, HEAD[1]: bias}


def random_origin(seed: int, network: str = NETWORK) -> Model:
    """Return a network of stateless draws without a head's row: the same bytes everywhere.

    Convolutions from U(-b, b) with the variance 2 / fan_out of He et al. 2015 (torchvision's
    own start of a ResNet, with another shape of the distribution); batch norms at 1 and 0.
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
    return Model(without_head(state, network), (), metadata)


def without_head(body: State, network: str) -> State:
    """Return the state dict with a head of no rows."""
    features = blank(network).fc.in_features
    return {**body, HEAD[0]: torch.zeros(0, features), HEAD[1]: torch.zeros(0)}


def save(path: Path, state: State, metadata: Mapping[str, Any], known: Known | None = None) -> None:
    """Write a model atomically. All metadata stands under one key, as canonical JSON.

    With several keys safetensors would write them in another order in every process. Of resnet18
    none says `network`: there was no other once.
    """
    said = {key: value for key, value in metadata.items() if (key, value) != ("network", NETWORK)}
    more = {f"{KNOWN}{name}": tensor for name, tensor in vars(known).items()} if known else {}
    every = sorted({**state, **more}.items())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in every}
    write_bytes(path, safetensors.torch.save(tensors, {METADATA_KEY: canonical_json(said)}))


def load(path: Path, days: Sequence[str] = ()) -> Model:
    """Read a model that `save` wrote, of one of these `days` if any are given.

    ModelError where it is missing, not one of dayfold's, or of another day.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            classes = tuple(metadata["classes"])
            more = {name: state.pop(name) for name in list(state) if name.startswith(KNOWN)}
            known = {name.removeprefix(KNOWN): tensor for name, tensor in more.items()}
    except FileNotFoundError:
        what = f"{os.path.relpath(path)} is not here yet."
        raise ModelError(what, hint="dvc checkout || dvc pull") from None
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path} is not a model of dayfold's: {error}", hint="dvc checkout --force"
        ) from None
    if days and metadata["day"] not in days:
        raise ModelError(
            f"{os.path.relpath(path)} is the model of {metadata['day']}, not of {days[0]}.",
            hint="dayfold status says what is to be done first",
        )
    return Model(state, classes, metadata, Known(**known) if known else None)


class WithFeatures(torch.nn.Module):
    """A network, or its last layers, that answers with features, and logits after them."""

    def __init__(self, learner: torch.nn.Module) -> None:
        super().__init__()
        *body, head = learner.children()
        self.body, self.head = torch.nn.Sequential(*body, torch.nn.Flatten()), cast(Linear, head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float [n, d + classes]."""
        features = self.body(images)
        return torch.cat([features, self.head(features)], dim=1)

    def parted(self, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features [n, d] and logits [n, classes] of what it has answered."""
        count = self.head.in_features
        return made[:, :count], made[:, count:]


def outputs(
    net: torch.nn.Module, images: torch.Tensor, machine: Machine, *, batch_size: int = BATCH
) -> torch.Tensor:
    """Return what the network makes of images: uint8 [n, 3, h, w] → float32 [n, outputs]."""
    parts = torch.split(images, batch_size)
    return answers(net, (pixels.normalised(part.to(machine.device)) for part in parts), machine)


def answers(
    net: torch.nn.Module, batches: Iterable[torch.Tensor], machine: Machine
) -> torch.Tensor:
    """Return what the network makes of batches that are ready for it: float32 [n, outputs]."""
    net.eval()
    with torch.inference_mode(), machine.autocast():
        return torch.cat([net(batch).float().cpu() for batch in batches])
