"""ResNet18 (He et al. 2016), with the names, the shapes and the bits of torchvision's.

It is written out here because `import torchvision` takes as long as `import torch`, 3 s of a CPU,
and every stage that trains or predicts would wait for it. A test compares both at every size.
"""

import torch
from torch import nn


class Block(nn.Module):
    """Two 3 x 3 convolutions, and a shortcut past them.

    Maps float [n, inputs, h, w] to [n, outputs, h / stride, w / stride].
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the sum of the convolutions and the shortcut, without what is below 0."""
        shortcut = images if self.downsample is None else self.downsample(images)
        made = self.relu(self.bn1(self.conv1(images)))
        made = self.bn2(self.conv2(made))
        made += shortcut
        summed: torch.Tensor = self.relu(made)
        return summed


class ResNet18(nn.Module):
    """Maps float [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(64, 64), Block(64, 64))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        made = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        made = self.layer4(self.layer3(self.layer2(self.layer1(made))))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(made), 1))
        return logits
