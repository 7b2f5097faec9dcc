"""From a genotype to a plain network to train: building, cost, drop-path."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.genotype import Genotype
from nas.spaces import SPACES
from nas.spaces.darts_parts import AuxiliaryHead


def build_network(
    genotype: Genotype,
    sizes: Mapping[str, Any],
    *,
    in_channels: int,
    num_classes: int,
    auxiliary: bool = False,
) -> nn.Module:
    """Builds the plain network of `genotype`.

    Args:
        genotype: Names its space, which builds the network.
        sizes: Sizes of that space by name (channels, cells, ...); what is missing is that of the
            genotype, where it has sizes, or else the space's default.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        auxiliary: Add the auxiliary head; in training the output is then a pair.

    Raises:
        UserError: unknown space, a size that the space does not have, or an unfit genotype.
    """
    space_type = SPACES.get(genotype.space, "genotype.space")
    check_sizes(genotype.space, sizes, "network")
    try:
        given = {**genotype.sizes, **sizes}
        space = space_type(in_channels=in_channels, num_classes=num_classes, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"genotype: sizes that {genotype.space} has not: {error}") from None
    network: nn.Module = space.build_network(genotype, auxiliary=auxiliary)
    return network


def check_sizes(space: str, sizes: Mapping[str, Any], key: str) -> None:
    """Refuses sizes that networks of `space` do not have.

    Raises:
        UserError: it names the size as a setting of `key`.
    """
    fields = SPACES.get(space, "space").__dataclass_fields__  # type: ignore[attr-defined]
    foreign = [name for name in sizes if name not in fields]
    if foreign:
        raise UserError(
            f"{key}.{foreign[0]}: a network of the space {space} has no such size; leave it at null"
        )


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        num_parameters: Parameters, without an auxiliary head.
        multiply_adds: Multiply-adds of convolutions, linear layers and attention for one image;
            papers call this figure FLOPs. Edges that cannot reach the output are not run and not
            counted.
    """

    num_parameters: int
    multiply_adds: int


def num_parameters(module: nn.Module) -> int:
    """How many numbers the parameters of `module` have, each parameter counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def network_cost(network: nn.Module, in_channels: int, image_size: int) -> Cost:
    """Counts the cost of `network` in evaluation, on images of `image_size` pixels a side.

    Runs a copy on PyTorch's meta device: no arithmetic is done.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and only needed here

    model = copy.deepcopy(network).to("meta").eval()
    # By its class: a model of the user's may call any part of it auxiliary.
    heads = [module for module in model.modules() if isinstance(module, AuxiliaryHead)]
    total = num_parameters(model) - sum(map(num_parameters, heads))
    _leave_out_uncounted(model)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    return Cost(total, counter.get_total_flops() // 2)


def _leave_out_uncounted(network: nn.Module) -> None:
    """Norms and activations do nothing from now on: they count nothing and take most of the time.

    They stay in their places, as other modules may read them: PyTorch's own layer of a transformer
    compares what its norms are set to.
    """
    for module in network.modules():
        if isinstance(module, _UNCOUNTED):
            module.forward = _same  # type: ignore[method-assign, assignment]


def _same(x: Tensor) -> Tensor:
    return x


_UNCOUNTED = (nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)


def check_input(network: nn.Module, in_channels: int, image_size: int) -> None:
    """Runs a copy of `network` in training on PyTorch's meta device, where nothing is computed.

    Finds what does not fit before a run writes anything.

    Raises:
        UserError: the auxiliary head does not fit images of `image_size` pixels a side.
    """
    model = copy.deepcopy(network).to("meta").train()
    with torch.no_grad():
        model(torch.empty(2, in_channels, image_size, image_size, device="meta"))


@runtime_checkable
class _HasPaths(Protocol):
    """A part of a network that says which of its modules drop-path may cut."""

    def droppable_paths(self) -> list[nn.Module]:
        """The modules."""


class DropPath:
    """Drops whole paths of single images in training (FractalNet, arXiv:1605.07648; NASNet).

    One object serves all edges of a network as a forward hook, so that neither cells nor saved
    weights know of it. Each image's output of an edge is set to zero with the present probability
    and scaled by 1 / (1 - probability) otherwise. Skip connections are never dropped.

    Attributes:
        num_paths: How many paths may be dropped.
    """

    def __init__(self, network: nn.Module) -> None:
        self._keep = torch.ones(())
        self._active = False
        self.num_paths = 0
        for module in network.modules():
            if isinstance(module, _HasPaths):
                for path in module.droppable_paths():
                    path.register_forward_hook(self)
                    self.num_paths += 1

    def set_probability(self, probability: float) -> None:
        """Sets the probability of a drop, in [0, 1)."""
        # A tensor, not a number: compiled code would be made again for each new number.
        self._keep = torch.tensor(1.0 - probability)
        self._active = probability > 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if not (self._active and module.training):
            return out
        self._keep = self._keep.to(out.device)
        shape = len(out), *(1 for _ in out.shape[1:])
        keeps = torch.rand(shape, device=out.device) < self._keep
        return out * (keeps / self._keep).to(out.dtype)
