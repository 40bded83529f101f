"""What a network makes of the images of manifest rows, however many: its outputs, its features."""

import polars as pl
import torch

from dayfold.learning import network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.project.console import Ticker
from dayfold.project.layout import Project


def outputs(
    project: Project,
    rows: pl.DataFrame,
    net: torch.nn.Module,
    *,
    size: int,
    machine: Machine,
    doing: str,
) -> torch.Tensor:
    """Return the network's outputs of the images of rows (path, image): float32 [n, outputs]."""
    with Ticker(doing, len(rows), "images") as ticker:
        chunks = pixels.in_chunks(project.root, rows, size, ticker.advance)
        return torch.cat([network.outputs(net, chunk, machine) for chunk in chunks])


def body(model: Model, size: int) -> torch.nn.Module:
    """Return the network without its head: float32 [n, 3, size, size] → features [n, 512]."""
    net = network.build(model, size)
    net.fc = torch.nn.Identity()
    return net
