"""What is timed: one-path and dense supernets, and plain child networks of the same samples.

Every subject offers its steps for a round; in one round all of them run the same architecture.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.measure import Step
from nas.genotype import Genotype
from nas.kernels.fused import accelerate
from nas.kernels.graphs import graphs_for
from nas.ops import Norm
from nas.optimisation.bilevel import Batch, Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import DARTS, NASBench201, darts, nasbench201
from nas.spaces.cell import child_edges
from nas.supernet import Supernet
from nas.training.run import to_device

WEIGHTS = OptimizerSettings(learning_rate=0.025, nesterov=True, weight_decay=5e-4, clip_norm=5.0)
# A learning rate that moves no float32: all subjects keep the same logits and draw the same.
LOGITS = OptimizerSettings(name="adam", learning_rate=1e-30, beta1=0.5, weight_decay=1e-3)
TEMPERATURE = 5.0

Space = NASBench201 | DARTS
Autocast = Callable[[], AbstractContextManager[object]]


@dataclass
class Setting:
    """What all subjects of a comparison share.

    Attributes:
        space: The search space with its sizes.
        batch: Images and labels on the device.
        autocast: The context of forward passes.
    """

    space: Space
    batch: Batch
    autocast: Autocast = nullcontext
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = self.batch[0].device

    def supernet(self, kernels: str, *, channels_last: bool = True) -> Supernet:
        """A supernet of the space; weights and logits are the same in each."""
        torch.manual_seed(0)
        model = to_device(self.space.build_supernet(), self.device, channels_last)
        model = accelerate(model, kernels, self.device)
        graphs = graphs_for(model, kernels, self.device)
        return Supernet(model, torch.Generator().manual_seed(0), graphs=graphs)


class SupernetSteps:
    """The two steps of a search, as `nas.optimisation.bilevel` runs them."""

    def __init__(self, setting: Setting, sampler: str, kernels: str) -> None:
        self.setting = setting
        self._generator = torch.Generator()
        supernet = setting.supernet(kernels)
        self.learner = Learner(
            supernet,
            SampleSource(supernet, SAMPLERS.get(sampler), self._generator, TEMPERATURE),
            Updater(supernet.model.parameters(), WEIGHTS),
            Updater([supernet.logits], LOGITS),
            autocast=setting.autocast,
        )

    def steps(self, number: int) -> dict[str, Step]:
        """Weight step and logits step of round `number`, drawing included."""

        def weight_step() -> None:
            self._generator.manual_seed(number)
            self.learner.update_weights(self.setting.batch)

        def logits_step() -> None:
            self._generator.manual_seed(number)
            sample = self.learner.draw()
            gradient, _ = self.learner.decision_gradient(self.setting.batch, sample)
            self.learner.update_logits([sample], [gradient])

        return {"weight step": weight_step, "logits step": logits_step}

    def genotype(self, number: int) -> Genotype:
        """The architecture of round `number`."""
        self._generator.manual_seed(number)
        indices = self.learner.draw().indices
        assert indices is not None
        options = self.learner.supernet.options.items()
        choices = {name: names[k] for (name, names), k in zip(options, indices, strict=True)}
        space = self.setting.space
        return Genotype(space.name, space.operations, choices)

    def static_tensors(self) -> Iterable[Tensor]:
        """Parameters, buffers and what the optimiser keeps."""
        return _static_tensors(self.learner.supernet.model, self.learner.weights)


class ChildSteps:
    """The full training step of the plain network of a genotype, standard modules throughout."""

    def __init__(self, setting: Setting, genotype: Genotype, *, channels_last: bool) -> None:
        torch.manual_seed(0)
        network = plain_network(setting.space, genotype)
        self.network = to_device(network, setting.device, channels_last)
        self.updater = Updater(self.network.parameters(), WEIGHTS)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images, labels = setting.batch
        self.batch = images.contiguous(memory_format=layout), labels
        self._autocast = setting.autocast

    def train(self, images: Tensor, labels: Tensor) -> Tensor:
        """Forward, backward, optimiser; returns the loss."""
        with self._autocast():
            loss = nn.functional.cross_entropy(self.network(images), labels)
        loss.backward()
        self.updater.step()
        return loss.detach()

    def step(self) -> None:
        """One step on the batch of the setting."""
        self.train(*self.batch)

    def static_tensors(self) -> Iterable[Tensor]:
        """Parameters, buffers and what the optimiser keeps."""
        return _static_tensors(self.network, self.updater)


def plain_network(space: Space, genotype: Genotype) -> nn.Module:
    """The plain network with an operation on every edge that `genotype` names.

    A sample of the DARTS space has one on all edges, which `space.build_network` refuses.
    """
    make_edge = child_edges(genotype, Norm())
    if isinstance(space, DARTS):
        return darts.Network(space, make_edge, Norm())
    return nasbench201.Network(space, space.nodes, make_edge, Norm())


def random_batch(size: int, device: torch.device) -> Batch:
    """Random images of 32x32 pixels and labels; their values do not change what a step costs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (size,), generator=generator).to(device)
    return images.contiguous(memory_format=torch.channels_last), labels


def _static_tensors(model: nn.Module, updater: Updater) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for state in updater.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
