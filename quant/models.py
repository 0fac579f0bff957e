"""Float models that map onto the hardware: residual networks in post-activation form (convolution, BatchNorm, ReLU)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hwsim.network import Shape


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or a 1x1 projection where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Conv2d | nn.Identity = nn.Identity()
        self.shortcut_norm: nn.BatchNorm2d | nn.Identity = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(out_channels)

    def forward(self, values: Tensor) -> Tensor:
        """Return the block's output, of shape (n, out_channels, height / stride, width / stride)."""
        skip = self.shortcut_norm(self.shortcut(values))
        hidden = torch.relu(self.norm1(self.conv1(values)))
        return torch.relu(self.norm2(self.conv2(hidden)) + skip)


class ResidualNetwork(nn.Module):
    """A 3x3 convolution, stages of :class:`BasicBlock`, global average pooling and a linear layer.

    Parameters
    ----------
    image_shape : tuple of int
        (channels, height, width).
    stages : tuple of (int, int, int)
        (channels, blocks, stride of the first block) of each stage; the first convolution has the first stage's
        channels.
    classes : int
    """

    def __init__(self, image_shape: Shape, stages: tuple[tuple[int, int, int], ...], classes: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels = stages[0][0]
        self.conv = nn.Conv2d(image_shape[0], channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        blocks = []
        for out_channels, count, stride in stages:
            for index in range(count):
                blocks.append(BasicBlock(channels, out_channels, stride if index == 0 else 1))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (n, classes) for images of shape (n, channels, height, width), 0 .. 1."""
        values = torch.relu(self.norm(self.conv(images)))
        return self.linear(torch.flatten(self.pool(self.blocks(values)), 1))  # type: ignore[no-any-return]


def digits(classes: int) -> ResidualNetwork:
    """Return the network of the demo: 8x8 grey images, one block with an identity add and one with a projected add."""
    return ResidualNetwork((1, 8, 8), ((16, 1, 1), (32, 1, 2)), classes)


def resnet20(classes: int) -> ResidualNetwork:
    """Return ResNet-20 for 32x32 colour images, 16, 32 and 64 channels, with projection shortcuts."""
    return ResidualNetwork((3, 32, 32), ((16, 3, 1), (32, 3, 2), (64, 3, 2)), classes)


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"digits": digits, "resnet20": resnet20}
"""Named architectures, made for a number of classes; :func:`register` adds to them."""

CLASSES = 10
"""Of the digits and of CIFAR-10."""


def register(architecture: str, make: Callable[[int], nn.Module]) -> None:
    """Add an architecture of one's own to the catalog, for this process: then it trains and is loaded by its name.

    Parameters
    ----------
    architecture : str
    make : callable of int
        Returns a new float model for a number of classes, with weights drawn from torch's generator and an attribute
        ``image_shape``, (channels, height, width).

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if architecture in ARCHITECTURES:
        raise ValueError(f"the architecture {architecture!r} is there already")
    ARCHITECTURES[architecture] = make


def build(architecture: str, classes: int = CLASSES) -> nn.Module:
    """Return a new float model, with weights drawn from torch's generator.

    Raises
    ------
    ValueError
        If the architecture is not in the catalog.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"the architecture must be one of {', '.join(ARCHITECTURES)}, not {architecture!r}")
    return ARCHITECTURES[architecture](classes)
