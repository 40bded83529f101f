"""torchvision's ResNet18, 34 and 50, to the bit.

They are written out here because `import torchvision` takes 3 s of CPU, in every command that
trains or predicts (He et al. 2016; ResNet50 is version 1.5, with the stride in the 3 x 3
convolution).
"""

from typing import NamedTuple

import torch
from torch import nn


class Kind(NamedTuple):
    """A network's blocks, how many each layer has, and its published ImageNet weights.

    `kernels` are the sizes of a block's convolutions; the last one has `expansion` times as many
    channels. The weights are torchvision's IMAGENET1K_V1, made by one recipe for all three. V2 of
    ResNet50 is better on ImageNet, but its recipe has label smoothing, whose features transfer less
    well (Kornblith et al. 2021). torchvision itself checks only 8 digits of `sha256`, and only when
    it downloads.
    """

    kernels: tuple[int, ...]
    expansion: int
    layers: tuple[int, int, int, int]
    url: str
    sha256: str


class Block(nn.Module):
    """Convolutions, the first of 3 x 3 with the stride, and a shortcut past them.

    Maps float [n, inputs, h, w] to [n, expansion * width, h / stride, w / stride].
    """

    def __init__(self, kind: Kind, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.last, outputs, strided = len(kind.kernels), inputs, kind.kernels.index(3) + 1
        for at, kernel in enumerate(kind.kernels, start=1):
            given, outputs = outputs, width * (kind.expansion if at == self.last else 1)
            step = stride if at == strided else 1
            conv = nn.Conv2d(given, outputs, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{at}", conv)
            self.add_module(f"bn{at}", nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)
        is_same_shape = stride == 1 and inputs == outputs
        conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.downsample = None if is_same_shape else nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shortcut = images if self.downsample is None else self.downsample(images)
        features = images
        for at in range(1, self.last + 1):
            features = getattr(self, f"bn{at}")(getattr(self, f"conv{at}")(features))
            features = self.relu(features) if at < self.last else features
        features += shortcut
        summed: torch.Tensor = self.relu(features)
        return summed


_AT = "https://download.pytorch.org/models/"
NETWORKS = {
    "resnet18": Kind(
        (3, 3),
        1,
        (2, 2, 2, 2),
        f"{_AT}resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    "resnet34": Kind(
        (3, 3),
        1,
        (3, 4, 6, 3),
        f"{_AT}resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    ),
    "resnet50": Kind(
        (1, 3, 1),
        4,
        (3, 4, 6, 3),
        f"{_AT}resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
}


class ResNet(nn.Module):
    """Maps float [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, kind: Kind, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        wide, (one, two, three, four) = kind.expansion, kind.layers
        self.layer1 = _layer(kind, one, 64, 64, 1)
        self.layer2 = _layer(kind, two, 64 * wide, 128, 2)
        self.layer3 = _layer(kind, three, 128 * wide, 256, 2)
        self.layer4 = _layer(kind, four, 256 * wide, 512, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * wide, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(features), 1))
        return logits


def _layer(kind: Kind, count: int, inputs: int, width: int, stride: int) -> nn.Sequential:
    more = (Block(kind, width * kind.expansion, width) for _ in range(count - 1))
    return nn.Sequential(Block(kind, inputs, width, stride), *more)


def blank(network: str, classes: int = 1) -> ResNet:
    """Return a network on the meta device: no weights are drawn only to be replaced."""
    with torch.device("meta"):
        return ResNet(NETWORKS[network], classes)


def network_of(state: dict[str, torch.Tensor]) -> str:
    """Return the name in NETWORKS whose kernels have a state dict's names and shapes, or ""."""
    found = _kernels(state)
    return next((name for name in NETWORKS if _kernels(blank(name).state_dict()) == found), "")


def _kernels(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if tensor.ndim == 4}
