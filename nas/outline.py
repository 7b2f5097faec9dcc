"""A network as the sequence of its parts: what each makes of the images, and what it costs."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.choice import Decision
from nas.genotype import Genotype
from nas.network import build_network, num_parameters
from nas.spaces import SPACES
from nas.spaces.darts import Cell as DartsCell
from nas.spaces.nasbench201 import Cell as NasBenchCell
from nas.spaces.space import without_weights


@dataclass(frozen=True)
class Part:
    """One part of a network, or several equal ones in a row.

    Attributes:
        name: What it is ("normal", "stem").
        kind: `cell` (or block, or layer), `reduction` if it makes images smaller, `fixed` for stem
            and classifier.
        channels: Of what it gives: channels, width of tokens, or classes.
        size: Pixels a side, or the number of tokens; 1 without either.
        unit: What `size` counts: `pixels`, `tokens`, or "" for neither.
        num_parameters: Trainable parameters, of all that it stands for.
        count: How many equal ones it stands for.
    """

    name: str
    kind: str
    channels: int
    size: int
    unit: str
    num_parameters: int
    count: int = 1


def outline(
    genotype: Genotype,
    sizes: Mapping[str, Any],
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
) -> list[Part]:
    """The parts of the network of `genotype`, in the order in which they run; see `parts_of`.

    Args:
        genotype: Of the network.
        sizes: See `nas.network.build_network`.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        image_size: Pixels a side.

    Raises:
        UserError: the network cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(genotype, sizes, in_channels=in_channels, num_classes=num_classes)
        options = _options(genotype, sizes, in_channels, num_classes)
    return parts_of(network, genotype, in_channels, image_size, options)


def parts_of(
    network: nn.Module,
    genotype: Genotype,
    in_channels: int,
    image_size: int,
    options: Mapping[str, str] | None = None,
) -> list[Part]:
    """The parts of `network`, in the order in which they run.

    Equal ones in a row are one part. Nothing is computed: a copy runs on PyTorch's meta device.
    What has no parameters (activations, pooling) is left out.

    Args:
        network: A plain one, without choices.
        genotype: Of the network.
        in_channels: Channels of the images.
        image_size: Pixels a side.
        options: What was chosen for a part, by its place in the network, to be shown with its name.
    """
    model = copy.deepcopy(network).to("meta").eval()
    shapes: dict[str, torch.Size] = {}
    blocks = dict(_blocks(model))
    for path, block in blocks.items():
        block.register_forward_hook(_noting(path, shapes))
    with torch.no_grad():
        model(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    parts: list[Part] = []
    size_before = image_size
    for path, shape in shapes.items():
        block = blocks[path]
        count = num_parameters(block)
        if count:
            part = _part(path, block, shape, count, genotype, size_before)
            if options and path in options:
                part = replace(part, name=f"{part.name} {options[path]}")
            size_before = part.size
            parts.append(part)
    return _joined(parts)


def _options(
    genotype: Genotype, sizes: Mapping[str, Any], in_channels: int, num_classes: int
) -> dict[str, str]:
    """The option of each choice that is a part of its own, by its place in the network."""
    all_sizes = {**genotype.sizes, **sizes}
    space = SPACES.get(genotype.space)(
        in_channels=in_channels, num_classes=num_classes, **all_sizes
    )
    if space.has_cells:
        return {}
    supernet = without_weights(space.build_supernet)
    return {
        path: genotype.choices[module.name]
        for path, module in supernet.named_modules()
        if isinstance(module, Decision) and module.name in genotype.choices
    }


def _blocks(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that are parts, by their place: containers of parts are looked into."""
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        is_list = isinstance(child, nn.Sequential | nn.ModuleList)
        if is_list and any(not _is_of_torch(each) for each in child.children()):
            yield from _blocks(child, below)
        else:
            yield below, child


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _noting(path: str, shapes: dict[str, torch.Size]) -> Any:
    """A hook that notes the shape of the output, or of the last one of several."""

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        last = output[-1] if isinstance(output, tuple) else output
        if isinstance(last, Tensor) and last.dim() > 1:
            shapes[path] = last.shape

    return hook


def _part(
    path: str,
    block: nn.Module,
    shape: torch.Size,
    num_parameters: int,
    genotype: Genotype,
    size_before: int,
) -> Part:
    size, unit = 1, ""
    channels = shape[-1]
    if len(shape) == 4:
        channels, size, unit = shape[1], shape[2], "pixels"
    elif len(shape) == 3:
        size, unit = shape[1], "tokens"
    kind = "fixed"
    halves = unit == "pixels" and size < size_before
    if isinstance(block, DartsCell | NasBenchCell):
        name, kind = _cell_name(genotype, halves), "reduction" if halves else "cell"
    else:
        name = _name(path, block)
        if not _is_of_torch(block) and name not in ("stem", "head"):
            kind = "reduction" if halves else "cell"
    return Part(name, kind, channels, size, unit, num_parameters)


def _cell_name(genotype: Genotype, halves: bool) -> str:
    cells = genotype.cells()
    return cells[-1 if halves else 0]


def _name(path: str, block: nn.Module) -> str:
    """The name that the network has for it, else that of its class in words."""
    own = path.rpartition(".")[2]
    if isinstance(block, nn.Linear):
        return "classifier"
    if not own.isdecimal() and _is_of_torch(block):
        return own.replace("_", " ")
    if _is_of_torch(block):
        return "convolution"
    if own == "stem":
        return own
    name = type(block).__name__
    return name if name.isupper() or name[:2].isupper() else _words(name)


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()


def _joined(parts: list[Part]) -> list[Part]:
    """Equal parts in a row as one; what a first one costs more counts for all."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last and _told(last) == _told(part) and part.kind != "fixed":
            joined[-1] = replace(
                last,
                num_parameters=last.num_parameters + part.num_parameters,
                count=last.count + 1,
            )
        else:
            joined.append(part)
    return joined


def _told(part: Part) -> tuple[str, str, int, int]:
    return part.name, part.kind, part.channels, part.size
