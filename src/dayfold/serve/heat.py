"""Heat maps (LayerCAM): where a model looks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from dayfold.learning import network, pixels
from dayfold.learning.network import Model
from dayfold.ledger import decode

LAYERS = {"layer3": 16, "layer2": 8, "layer1": 4}  # and their strides, in pixels of the image
FINE = 7  # pixels a side that a map must have
HOT = np.array([255, 48, 0], dtype=np.float32)  # RGB where the model looks most
STRONGEST = 0.6  # share of that colour there


def heat_maps(model: Model, images: torch.Tensor) -> torch.Tensor:
    """Return each image's heat map, 0..1: uint8 [n, 3, s, s] → float32 [n, s, s].

    LayerCAM (Jiang et al., "LayerCAM: exploring hierarchical class activation maps for
    localization", 2021) on the deepest layer whose map is fine enough: each activation times its
    gradient where that is above 0, summed over the channels.
    """
    side = images.shape[-1]
    net = network.build(model, side).eval()
    layer = next((name for name, stride in LAYERS.items() if side >= FINE * stride), "layer1")
    activations: list[torch.Tensor] = []
    net.get_submodule(layer).register_forward_hook(lambda *hooked: activations.append(hooked[-1]))
    best = net(pixels.normalised(images)).max(dim=1).values
    (gradients,) = torch.autograd.grad(best.sum(), activations)
    maps = (gradients.relu() * activations[0]).sum(dim=1).detach()
    most = maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return functional.interpolate((maps / most)[:, None], [side, side], mode="bilinear")[:, 0]


def heat_pictures(model: Model, paths: Sequence[Path]) -> list[Image.Image]:
    size = model.metadata["recipe"]["image_size_px"]
    with decode.no_warnings():
        read = [decode.squared(decode.decode(path.read_bytes()), size) for path in paths]
    images = torch.from_numpy(np.stack(read))
    made = []
    for image, heat in zip(images, heat_maps(model, images), strict=True):
        part = heat[:, :, None].numpy() * STRONGEST
        mixed = image.permute(1, 2, 0).numpy() * (1 - part) + HOT * part
        made.append(Image.fromarray(mixed.astype(np.uint8)))
    return made
