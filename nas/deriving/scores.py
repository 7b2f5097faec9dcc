"""Training-free scores: what an untrained network says of its architecture.

Each takes a network as initialised and a batch, and is higher for architectures that it expects to
be better. `parameters` and `multiply_adds` are the measure of all the others: on NAS-Bench-201 few
published scores rank cells better than their size does.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.genotype import Genotype
from nas.network import network_cost, num_parameters
from nas.ops import guard_pointwise
from nas.optimisation.bilevel import Batch
from nas.registry import Registry
from nas.spaces.space import SearchSpace

Score = Callable[[nn.Module, Batch], float]
"""(network as initialised, images `[B, C, H, W]` and labels) -> score, higher is better."""

SCORES: Registry[Score] = Registry("score")

_RELUS = (nn.ReLU, nn.ReLU6)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


@SCORES.register("parameters")
def parameters(network: nn.Module, batch: Batch) -> float:
    """The number of parameters."""
    return float(num_parameters(network))


@SCORES.register("multiply_adds")
def multiply_adds(network: nn.Module, batch: Batch) -> float:
    """The multiply-adds of one image; papers call them FLOPs."""
    _, in_channels, _, size = batch[0].shape
    return float(network_cost(network, in_channels, size).multiply_adds)


@SCORES.register("naswot")
def naswot(network: nn.Module, batch: Batch) -> float:
    """How differently the ReLUs see the images of a batch (Mellor et al., 2021, arXiv:2006.04647).

    log |det K| where `K[i, j]` counts the ReLUs that images i and j either both or neither make
    active; -inf where two images look the same. Of a ReLU6 only the lower bend counts.
    """
    images = batch[0]
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        active = (output.detach().flatten(1) > 0).float()
        idle = 1 - active
        # Exact in float32: whole numbers, far below 2^24 for each layer.
        kernel.add_((active @ active.T + idle @ idle.T).to(kernel))

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, _RELUS)]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    sign, log_determinant = torch.linalg.slogdet(kernel)
    return float(log_determinant) if sign > 0 else -math.inf


@SCORES.register("synflow")
def synflow(network: nn.Module, batch: Batch) -> float:
    """log of the synaptic flow (Tanaka et al., 2020, arXiv:2006.05467), which sees no data.

    `sum(w dR/dw)`, R the sum of the outputs for an image of ones, with the absolute values of the
    weights and without norms (Abdelfattah et al., 2021, arXiv:2101.08134, for architectures). ReLU6
    is not cut off at 6 either: all units of such a network would end there, without a gradient.
    """
    network = network.double()  # products of many layers leave the range of float32
    for module in network.modules():
        # In place of it, not behind it: of a single pixel a norm has no statistics.
        if isinstance(module, _NORMS):
            module.forward = nn.Identity().forward  # type: ignore[method-assign]
        elif isinstance(module, nn.ReLU6):
            module.forward = torch.relu  # type: ignore[method-assign]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    network(torch.ones_like(batch[0][:1], dtype=torch.float64)).sum().backward()
    flow = 0.0
    for parameter in network.parameters():
        if parameter.grad is not None:  # an edge that reaches nothing has none
            flow += float((parameter.detach() * parameter.grad).sum())
    return math.log(flow) if flow > 0 else -math.inf


def check_score(name: str, model: nn.Module, key: str) -> None:
    """Refuses a score that would say the same of all architectures.

    Args:
        name: Of the score.
        model: The supernet.
        key: The setting that asks for the score.

    Raises:
        UserError: it would.
    """
    if name == "naswot" and not any(isinstance(module, _RELUS) for module in model.modules()):
        raise UserError(
            f"{key}: naswot sees what layers of nn.ReLU and nn.ReLU6 do, the networks have none: "
            "take another score"
        )


class TrainingFree:
    """Scores genotypes by untrained networks of a space.

    Every genotype is initialised from the same seed and sees the same images, so that scores
    differ by architecture alone as far as that goes.
    """

    def __init__(self, space: SearchSpace, batch: Batch, seed: int) -> None:
        self._space, self._batch, self._seed = space, batch, seed

    def __call__(self, name: str, genotype: Genotype) -> float:
        """The score called `name` of `genotype`.

        Raises:
            UserError: there is no such score.
        """
        score, (images, labels) = SCORES.get(name), self._batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            network = self._space.build_network(genotype)
        network = network.to(images.device).train()
        if images.is_contiguous(memory_format=torch.channels_last):
            network = guard_pointwise(network.to(memory_format=torch.channels_last))
        return score(network, (images, labels))
