"""torchvision's ResNet18, 34 and 50, to the bit.

Written out, as `import torchvision` takes 3 s of a CPU, for which all that trains or predicts would
wait (He et al. 2016; of ResNet50 version 1.5, whose stride is in the 3 x 3 convolution).
"""

from typing import NamedTuple

import torch
from torch import nn


class Block(nn.Module):
    """Two 3 x 3 convolutions, and a shortcut past them.

    Maps float [n, inputs, h, w] to [n, expansion * width, h / stride, w / stride].
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the sum of the convolutions and the shortcut, without what is below 0."""
        shortcut = images if self.downsample is None else self.downsample(images)
        made = self.relu(self.bn1(self.conv1(images)))
        made = self.bn2(self.conv2(made))
        made += shortcut
        summed: torch.Tensor = self.relu(made)
        return summed


class Bottleneck(nn.Module):
    """As `Block`, of a 3 x 3 convolution between two of 1 x 1, to fewer channels and back."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the sum of the convolutions and the shortcut, without what is below 0."""
        shortcut = images if self.downsample is None else self.downsample(images)
        made = self.relu(self.bn1(self.conv1(images)))
        made = self.relu(self.bn2(self.conv2(made)))
        made = self.bn3(self.conv3(made))
        made += shortcut
        summed: torch.Tensor = self.relu(made)
        return summed


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """What makes a block's input as large as its output; None where it is."""
    if stride == 1 and inputs == outputs:
        return None
    fitting = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(fitting, nn.BatchNorm2d(outputs))


class Kind(NamedTuple):
    """Of which blocks a network is, how many a layer, and its published ImageNet weights.

    These are torchvision's IMAGENET1K_V1 of all three, made by one recipe; ResNet50's V2 is better
    on ImageNet by a recipe with label smoothing, whose features transfer less well (Kornblith et
    al. 2021). torchvision checks 8 digits of `sha256`, and those only when it downloads.
    """

    block: type[Block] | type[Bottleneck]
    layers: tuple[int, int, int, int]
    url: str
    sha256: str


_AT = "https://download.pytorch.org/models/"
NETWORKS = {
    "resnet18": Kind(
        Block,
        (2, 2, 2, 2),
        f"{_AT}resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    "resnet34": Kind(
        Block,
        (3, 4, 6, 3),
        f"{_AT}resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    ),
    "resnet50": Kind(
        Bottleneck,
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
        block, wide, (one, two, three, four) = kind.block, kind.block.expansion, kind.layers
        self.layer1 = _layer(block, one, 64, 64, 1)
        self.layer2 = _layer(block, two, 64 * wide, 128, 2)
        self.layer3 = _layer(block, three, 128 * wide, 256, 2)
        self.layer4 = _layer(block, four, 256 * wide, 512, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * wide, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        made = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        made = self.layer4(self.layer3(self.layer2(self.layer1(made))))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(made), 1))
        return logits


def _layer(
    block: type[Block] | type[Bottleneck], count: int, inputs: int, width: int, stride: int
) -> nn.Sequential:
    """So many blocks; the first one makes the maps smaller by the stride."""
    more = (block(width * block.expansion, width) for _ in range(count - 1))
    return nn.Sequential(block(inputs, width, stride), *more)


def blank(network: str, classes: int = 1) -> ResNet:
    """A network in shape only: no weights are drawn that are replaced at once."""
    with torch.device("meta"):
        return ResNet(NETWORKS[network], classes)


def network_of(state: dict[str, torch.Tensor]) -> str:
    """Return whose kernels a state dict has, by their names and shapes; "" for none of NETWORKS."""
    found = _kernels(state)
    return next((name for name in NETWORKS if _kernels(blank(name).state_dict()) == found), "")


def _kernels(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if tensor.ndim == 4}
