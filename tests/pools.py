"""Pools of images to train on, and models to start from, without a project."""

import numpy as np
import torch

from dayfold.learning import network
from dayfold.learning.inputs import Pool
from dayfold.learning.network import Model
from dayfold.project.params import NETWORK


def pool_of(count: int, classes: int) -> Pool:
    images = [f"{number:064x}" for number in range(count)]
    values = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    targets = torch.arange(count) % classes
    return Pool(torch.from_numpy(values), targets, images, [1.0] * count)


def start_of(classes: int, seed: int = 0, of: str = NETWORK) -> Model:
    names = [str(number) for number in range(classes)]
    return network.grown(network.random_origin(seed, of), names, seed=0)
