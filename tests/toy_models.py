"""Models with choices in them, for tests."""

import torch
from torch import Tensor, nn

import nas
from nas import elastic


class SmallNet(nn.Module):
    """One choice of every kind, some of which depend on each other."""

    def __init__(self, num_classes: int, in_channels: int = 1, depth: int = 2) -> None:
        super().__init__()
        width = nas.ValueChoice([8, 4], "width")
        self.stem = elastic.ConvNorm2d(in_channels, width, nas.ValueChoice([3, 1], "kernel"), 2)
        self.act = nas.Choice([nn.ReLU(), nn.Tanh()])
        blocks = [elastic.ConvNorm2d(width, width, 3, groups=width) for _ in range(depth)]
        self.blocks = nas.Repeat(blocks, range(1, depth + 1), "depth")
        self.take = nas.InputChoice(["stem", "blocks"])
        self.hidden = elastic.Linear(width, nas.ValueChoice([2, 3], "ratio") * width)
        self.norm = elastic.LayerNorm(self.hidden._out)
        self.head = elastic.Linear(self.hidden._out, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.take(x, self.blocks(x)).mean((2, 3))
        out: Tensor = self.head(self.norm(torch.relu(self.hidden(x))))
        return out


class ReadsNumbers(nn.Module):
    """Reads numbers from tensors while it is made, which tensors without memory do not have."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, 0.5, 2)]
        sizes = torch.tensor([3, 1]).numpy()
        convs = [nn.Conv2d(in_channels, 4, int(k), padding=int(k) // 2) for k in sizes]
        self.conv = nas.Choice({"3x3": convs[0], "1x1": convs[1]}, "conv")
        self.drop = nas.Choice({str(rate): nn.Dropout(rate) for rate in rates}, "drop")
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(self.conv(x).mean((2, 3))))
        return out


class Shared(nn.Module):
    """A module that is used twice, and choices inside of choices."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        inner = nas.Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4, bias=False)}, "inner")
        self.first = nas.Choice({"deep": nn.Sequential(inner, nn.ReLU()), "flat": nn.Identity()})
        self.second = inner
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.first(x.flatten(1)[:, :4])))
        return out


class WrongShape(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        same = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.conv = nas.Choice({"same": same, "smaller": nn.Conv2d(in_channels, 4, 3)}, "conv")
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(x).mean((2, 3)))
        return out


class WrongWidth(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = elastic.Conv2d(in_channels, nas.ValueChoice([4, 8], "width"), 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(x).mean((2, 3)))
        return out


class TwoMeanings(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.a = nas.Choice({"x": nn.Identity(), "y": nn.ReLU()}, "act")
        self.b = nas.Choice({"x": nn.Identity(), "z": nn.Tanh()}, "act")


class NoChoice(nn.Linear):
    def __init__(self, num_classes: int) -> None:
        super().__init__(64, num_classes)


def not_a_model(num_classes: int) -> int:
    return num_classes
