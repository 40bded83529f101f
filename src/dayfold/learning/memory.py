"""What yesterday's model makes of old images: by this a replay policy may choose them."""

import polars as pl
import torch

from dayfold.learning import device, features, network
from dayfold.project.layout import Project
from dayfold.project.params import Params


def scores(project: Project, old: pl.DataFrame, *, policy: str, params: Params) -> list[float]:
    """Return a number for each image of `old`, float32 as float [n]; small ones are chosen first.

    `hard`: the probability that yesterday's model gives to the image's label, 0 of one that a
    correction made and it does not know. `herding`: the distance of its features, float32 [512],
    from the mean of its class's (after Rebuffi et al. 2017, iCaRL). The arithmetic is the model's:
    equal under the same fingerprint only (level B).
    """
    recipe = params.train
    machine = device.resolve(
        device=recipe.device, precision=recipe.precision, threads=recipe.threads
    )
    parent = network.load(project.parent_model)
    net = (features.body if policy == "herding" else network.build)(parent, recipe.image_size_px)
    found = features.outputs(
        project,
        old,
        net.to(machine.device),
        size=recipe.image_size_px,
        machine=machine,
        batch_size=params.evaluate.batch_size,
        doing="looking back",
    )
    if policy == "hard":
        ids = {label: position for position, label in enumerate(parent.classes)}
        chances = found.softmax(1)
        return [
            float(row[ids[label]]) if label in ids else 0.0
            for row, label in zip(chances, old["label"], strict=True)
        ]
    distances = torch.empty(len(old))
    labels = old["label"].to_numpy()
    for label in sorted(set(labels)):
        mine = torch.from_numpy(labels == label)
        distances[mine] = (found[mine] - found[mine].mean(dim=0)).norm(dim=1)
    return [float(distance) for distance in distances]
