"""A step does not wait for the device: it copies the inner products to the host, once.

On PyTorch's meta device there are no values, so whatever would read one fails; the one copy that is
allowed is counted and answered with zeros. On a GPU itself: tests/gpu/test_gpu_steps.py.
"""

from typing import Any

import pytest
import torch
from supernet_helpers import SPACES, generator
from torch.utils._python_dispatch import TorchDispatchMode

from nas.kernels.fused import accelerate
from nas.optimisation.bilevel import Alternating, Batch, Learner, SingleLevel
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Supernet
from nas.training.run import autocast_for

META = torch.device("meta")


class CopiesToHost(TorchDispatchMode):
    """Counts the copies from the device by their number of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        to_host = kwargs.get("device") == torch.device("cpu") and "copy" in str(function)
        if to_host and args[0].is_meta:
            self.sizes.append(args[0].numel())
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return function(*args, **kwargs)


def learner_on(
    device: torch.device, space: str, kernels: str, precision: str, sampler: str = "gdas"
) -> Learner:
    model = accelerate(SPACES[space].build_supernet().to(device), kernels, device)
    supernet = Supernet(model, generator())
    weights = OptimizerSettings(clip_norm=5.0, nesterov=True)
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get(sampler), generator(), 2.0),
        Updater(model.parameters(), weights),
        Updater([supernet.logits], OptimizerSettings(name="adam")),
        autocast=autocast_for(precision, device),
    )


def batch_on(device: torch.device) -> Batch:
    return torch.zeros(4, 3, 8, 8, device=device), torch.zeros(4, dtype=torch.long, device=device)


@pytest.mark.parametrize("sampler", ["gdas", "gdas_authors"])
@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("space", SPACES)
def test_an_alternating_step_copies_once(space: str, kernels: str, sampler: str) -> None:
    learner = learner_on(META, space, kernels, "float32", sampler)
    bilevel, data = Alternating(learner), batch_on(META)
    for step in range(3):
        with CopiesToHost() as copies:
            bilevel.step(step, data, iter([data]))
        assert len(copies.sizes) <= 1, "none where no choice reaches the loss"
        assert all(size == len(learner.supernet._modules) for size in copies.sizes)


@pytest.mark.parametrize("sampler", ["softmax", "dirichlet"])
def test_a_step_over_all_operations_that_are_left_copies_once(sampler: str) -> None:
    learner = learner_on(META, "nasbench201", "plain", "float32", sampler)
    learner.supernet.prune(2)
    with CopiesToHost() as copies:
        Alternating(learner).step(0, batch_on(META), iter([batch_on(META)]))
    assert copies.sizes == [learner.supernet.logits.numel()]


def test_the_count_counts() -> None:
    with CopiesToHost() as copies:
        torch.zeros(3, device=META).to("cpu")
        torch.zeros(3, device=META).cpu()
        torch.zeros(3).to("cpu")
    assert copies.sizes == [3, 3]
    with pytest.raises(RuntimeError):
        torch.zeros((), device=META).item()


def test_a_single_level_step_copies_once() -> None:
    learner = learner_on(META, "nasbench201", "plain", "float32")
    with CopiesToHost() as copies:
        SingleLevel(learner).step(0, batch_on(META), iter([]))
    assert len(copies.sizes) <= 1
