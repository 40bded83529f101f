"""The origin's features as they are, with a ridge regression for a head: nothing is fine-tuned.

Where the start is good this beats most fine-tuning on a stream (RanPAC: McDonnell et al. 2023;
RanDumb: Prabhu et al. 2024), and an image goes through the network once in its life.
"""

import time
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
import torch
from torch.nn import functional

from dayfold.learning import calibration, device, network
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.ledger import manifest
from dayfold.project.files import sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params

PENALTIES = [10.0**power for power in range(-8, 3)]  # times the mean eigenvalue of the features
USUAL = 1e-2  # of these, where no validation image is there to choose by


def ridge(
    features: torch.Tensor,
    targets: torch.Tensor,
    classes: int,
    held: torch.Tensor,
    wanted: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the head of the least ridge loss: float64 [classes, d] and [classes].

    It maps `features` float [n, d] to 1 for their class in `targets` int64 [n] and to 0 for all
    others; the bias has no penalty. The penalty is that of PENALTIES with the least squared error
    on the images `held`, of the classes `wanted`: they are of other patients than the n.
    """
    x, y = features.double(), functional.one_hot(targets, classes).double()
    middle, share = x.mean(dim=0), y.mean(dim=0)
    x, y = x - middle, y - share
    values, vectors = torch.linalg.eigh(x.T @ x)
    turned, scale = vectors.T @ (x.T @ y), values.mean().clamp_min(1e-12)
    aim, found = functional.one_hot(wanted, classes).double() - share, []
    for penalty in PENALTIES if len(held) else [USUAL]:
        weight = vectors @ (turned / (values.clamp_min(0) + penalty * scale)[:, None])
        error = ((held.double() - middle) @ weight - aim).square().sum().item()
        found.append((error, -penalty, weight))
    weight = min(found, key=lambda one: one[:2])[2]
    return weight.T, share - middle @ weight


def run(project: Project, params: Params, origin: Path) -> dict[str, Any]:
    """Write the day's model: the origin's network with a ridge head of all training images so far.

    Returns what a backtest records of a day. In fp32: the head's large weights cancel each other.
    """
    began, recipe, history = time.monotonic(), params.train, manifest.history(project, params.day)
    rows, held = history.split("train"), history.split("validation")
    classes = sorted({*rows["label"]})
    held = held.filter(pl.col("label").is_in(classes))
    machine = device.resolve(device=recipe.device, precision="fp32", threads=recipe.threads)
    begin = network.load(origin)
    where = {"device": machine.device, "precision": machine.precision}
    facts: dict[str, Any] = {"network": begin.network, "recipe": recipe.model_dump() | where}
    body = Model(network.without_head(begin.state, begin.network), (), facts)
    model = network.grown(body, classes, params.seed)
    features, new = _features(project, pl.concat([rows, held]), model, machine)
    ids = {label: at for at, label in enumerate(classes)}
    targets, wanted = (torch.tensor([ids[name] for name in one["label"]]) for one in (rows, held))
    shown, asked = features[: len(rows)], features[len(rows) :]
    weight, bias = ridge(shown, targets, len(classes), asked, wanted.long())
    # A ridge's answers lie in 0..1: without this the softmax would be sure of nothing.
    logits = asked.double() @ weight.T + bias
    temperature = calibration.temperature((logits.numpy(), wanted.numpy()))
    head = {"fc.weight": weight / temperature, "fc.bias": bias / temperature}
    state = {**model.state, **{name: tensor.float() for name, tensor in head.items()}}
    facts |= {"classes": classes, "day": params.day}
    network.save(project.model, state, facts)
    passed = rows.filter(pl.col("image").is_in(new)).height
    seconds = time.monotonic() - began
    made = sha256_file(project.model)
    return {"day": params.day, "model": made, "images": passed, "draws": passed, "seconds": seconds}


def _features(
    project: Project, rows: pl.DataFrame, model: Model, machine: Machine
) -> tuple[torch.Tensor, list[str]]:
    """What the head is given of images, float32 [n, d] in their order; which of it was made now.

    Kept by image, not in sums: a later day may correct a label.
    """
    path = project.root / "features.safetensors"
    kept = safetensors.torch.load_file(path) if path.exists() else {}
    missing = rows.filter(~pl.col("image").is_in(list(kept)))
    new: list[str] = missing["image"].to_list()
    made = network.features(project.root, missing, model, machine, lambda _: None)
    kept |= zip(new, made.contiguous().unbind(), strict=True)
    write_bytes(path, safetensors.torch.save({name: one.clone() for name, one in kept.items()}))
    return torch.stack([kept[image] for image in rows["image"]]), new
