"""Small supernets that the tests share, the gradients of their decisions, and their children."""

import torch
from hypothesis import settings
from torch import Tensor, nn

from nas.choice import Choice
from nas.spaces import DARTS, GDASFixedReduction, NASBench201, SearchSpace
from nas.supernet import Sample, Supernet

SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)

SPACES: dict[str, SearchSpace] = {
    "nasbench201": NASBench201(in_channels=3, num_classes=4, channels=4, cells_per_stage=1),
    "darts": DARTS(in_channels=3, num_classes=4, channels=4, cells=3, nodes=2),
    "gdas_frc": GDASFixedReduction(in_channels=3, num_classes=4, channels=8, cells=3, nodes=2),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(space: SearchSpace, seed: int = 0, scale: float = 1.0) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(space.build_supernet(), generator(seed), init_scale=scale)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    source = generator(seed)
    images = torch.randn(4, 3, 8, 8, generator=source, dtype=torch.get_default_dtype())
    return images, torch.randint(4, (4,), generator=source)


def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels)


def decision_gradient(supernet: Supernet, sample: Sample, seed: int = 0) -> Tensor:
    images, labels = batch(seed)
    outputs, handle = supernet.forward_for_logits(images, sample)
    loss = loss_of(outputs, labels)
    (gradient,) = torch.autograd.grad(loss, handle, allow_unused=True)
    return supernet.weights_gradient(sample, gradient)


def logits_gradient(supernet: Supernet, sample: Sample, seed: int = 0) -> Tensor:
    sample.weights.backward(decision_gradient(supernet, sample, seed))
    gradient = supernet.logits.grad
    assert gradient is not None
    supernet.logits.grad = None
    return gradient


def copy_to_child(supernet: nn.Module, child: nn.Module, choices: dict[str, str]) -> None:
    """Copies the weights of the chosen candidates, found by the names of the modules."""
    weights = supernet.state_dict()
    modules = dict(supernet.named_modules())
    state: dict[str, Tensor] = {}
    for key in child.state_dict():
        source = key
        parts = key.split(".")
        for end in range(len(parts)):
            choice = modules.get(".".join(parts[:end]))
            if isinstance(choice, Choice):
                index = choice.options.index(choices[choice.name])
                source = ".".join([*parts[:end], "candidates", str(index), *parts[end:]])
        state[key] = weights[source]
    child.load_state_dict(state)
