"""Schemas of all settings, with their ranges. The YAML files beside give the values.

A ValueError from `__post_init__` names the dotted key, the value and the remedy.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from conf.budget_schema import (
    CountedBudgetConfig,
    LatencyBudgetConfig,
    NoBudgetConfig,
    check_budget,
)
from conf.derive_schema import (
    ArgmaxConfig,
    LocalSearchConfig,
    PerturbationConfig,
    SampledConfig,
)
from conf.export_schema import ExportConfig
from conf.network_schema import NetworkConfig
from conf.profile_schema import ProfileConfig
from conf.ranges import at_least
from conf.space_schema import (
    CustomConfig,
    DARTSConfig,
    MobileNetConfig,
    NASBench201Config,
    ViTConfig,
)
from nas.data import DataSettings
from nas.deriving.scores import SCORES
from nas.errors import unknown_name
from nas.kernels.fused import KERNELS
from nas.optimisation.bilevel import ORDERS
from nas.optimisation.collapse import CollapseSettings
from nas.optimisation.finite import NonFiniteSettings
from nas.optimisation.optimizers import OptimizerSettings
from nas.sampling.baseline import BASELINES
from nas.sampling.samplers import SAMPLERS, WEIGHT_SAMPLES
from nas.training.run import PRECISIONS


@dataclass(kw_only=True, slots=True)
class SamplerConfig:
    """A sampler without a temperature."""

    name: str = MISSING

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise ValueError(unknown_name("sampler", self.name, SAMPLERS, "sampler.name"))


@dataclass(kw_only=True, slots=True)
class TemperatureSamplerConfig(SamplerConfig):
    """A sampler with a temperature, on a straight line from the first epoch to the last."""

    temperature_start: float = 10.0  # of the first epoch
    temperature_end: float = 0.1  # of the last epoch

    def __post_init__(self) -> None:
        SamplerConfig.__post_init__(self)
        for name in ("temperature_start", "temperature_end"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"sampler.{name} is {getattr(self, name)}: must be positive")


@dataclass(kw_only=True, slots=True)
class SingleLevelConfig:
    """Weights and logits from the same batches."""

    name: str = "single_level"


@dataclass(kw_only=True, slots=True)
class FirstOrderConfig:
    """Weights and logits in turn; a round is `weight_steps` and then `logits_steps` updates."""

    name: str = "first_order"
    order: str = "weights_first"  # weights_first or logits_first, in a round
    weight_steps: int = 1  # updates of the weights in a round
    logits_steps: int = 1  # updates of the logits in a round
    groups: int = 1  # parts of a batch, each with samples of its own, in updates of both kinds
    logits_samples: int | None = None  # averaged in an update; null: as the sampler needs
    weight_samples: str = "sampler"  # sampler, uniform or fair (each operation once an update)
    baseline: str = "none"  # running_mean or none: of inner products that train the logits

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(unknown_name("order", self.order, ORDERS, "bilevel.order"))
        if self.baseline not in BASELINES:
            raise ValueError(unknown_name("baseline", self.baseline, BASELINES, "bilevel.baseline"))
        if self.weight_samples not in WEIGHT_SAMPLES:
            key = "bilevel.weight_samples"
            raise ValueError(unknown_name("samples", self.weight_samples, WEIGHT_SAMPLES, key))
        at_least("bilevel", self, weight_steps=1, logits_steps=1, groups=1)
        if self.logits_samples is not None:
            at_least("bilevel", self, logits_samples=1)


@dataclass(kw_only=True, slots=True)
class SecondOrderConfig(FirstOrderConfig):
    """The same with the unrolled gradient of the logits."""

    name: str = "second_order"
    radius: float = 0.01  # the finite difference moves the weights by this much, in norm

    def __post_init__(self) -> None:
        FirstOrderConfig.__post_init__(self)
        if not self.radius > 0:
            raise ValueError(f"bilevel.radius is {self.radius}: must be positive")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """What searches and retrainings have in common."""

    seed: int = 0  # of weights, samples, order and augmentation of the images
    epochs: int = MISSING  # passes over the training images (search: over the half for the weights)
    batch_size: int = MISSING  # images of an update, of all processes together
    device: str = "auto"  # auto, cpu, cuda or cuda:<number>
    threads: int | None = None  # CPU threads that share an operation; null: as many as cores
    precision: str = "float32"  # float32, tf32 (rounds in products on a GPU) or bf16 (autocast)
    channels_last: bool = True  # memory layout of images and weights
    deterministic: bool = False  # deterministic algorithms on a GPU too, at some cost
    sync_batch_norm: bool = False  # under torchrun: normalise by the images of all processes
    evaluate_every_epochs: int = 1  # how often the accuracy is measured
    checkpoint_every_steps: int = 0  # besides those after each epoch; 0: none
    run_dir: str = MISSING  # folder of the run; one with a checkpoint is continued
    resume: bool = False  # without a run_dir: continue the newest run
    data: DataSettings = MISSING  # images, their split and augmentation
    weights: OptimizerSettings = MISSING  # optimiser of the network weights
    non_finite: NonFiniteSettings = field(default_factory=NonFiniteSettings)  # NaN, infinity

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(unknown_name("precision", self.precision, PRECISIONS, "precision"))
        at_least("", self, epochs=1, batch_size=1, evaluate_every_epochs=1, seed=0)
        at_least("", self, checkpoint_every_steps=0)
        if self.threads is not None:
            at_least("", self, threads=1)
        self.weights.check("weights")
        self.non_finite.check("non_finite")


@dataclass(kw_only=True, slots=True)
class WarmStartConfig:
    """Logits to start from, by a training-free score of untrained networks."""

    score: str | None = None  # naswot, synflow, multiply_adds or parameters; null: none
    num_samples: int = 200  # untrained networks that are scored
    strength: float = 1.5  # moves the mean of the score by so many standard deviations

    def __post_init__(self) -> None:
        if self.score is not None and self.score not in SCORES:
            raise ValueError(unknown_name("score", self.score, SCORES, "warm_start.score"))
        at_least("warm_start", self, num_samples=2, strength=0)


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """A table of trained architectures to look results up in; the search does not see it."""

    nasbench201: str | None = None  # CSV file or NATS-Bench's own; null: none
    epochs: int = 200  # of the trainings that its accuracies were got with
    column: str = "cifar10_test"  # of the CSV file that has the accuracies

    def __post_init__(self) -> None:
        at_least("benchmark", self, epochs=1)


@dataclass(kw_only=True, slots=True)
class PruningConfig:
    """Progressive pruning: each choice loses its least probable options during the search."""

    epochs: list[int] = field(default_factory=list)  # when options are dropped: [20,35]
    keep: list[int] = field(default_factory=list)  # options of each choice from then on: [4,2]

    def __post_init__(self) -> None:
        if len(self.epochs) != len(self.keep):
            raise ValueError(
                f"pruning.epochs is {self.epochs} and pruning.keep is {self.keep}: give as many "
                "of the one as of the other"
            )
        if any(after <= before for before, after in pairwise(self.epochs)):
            raise ValueError(f"pruning.epochs is {self.epochs}: must increase")
        if (
            any(after >= before for before, after in pairwise(self.keep))
            or min(self.keep, default=1) < 1
        ):
            raise ValueError(f"pruning.keep is {self.keep}: must decrease, and be at least 1")

    def check(self, search: "SearchConfig") -> None:
        """Checks what depends on the other settings of the search."""
        if not self.epochs:
            return
        if not SAMPLERS.get(search.sampler.name).learns:
            raise ValueError(
                f"pruning.epochs reads the logits, which sampler={search.sampler.name} does not "
                "train: set it to []"
            )
        if self.epochs[0] <= search.warmup_epochs or self.epochs[-1] >= search.epochs:
            raise ValueError(
                f"pruning.epochs is {self.epochs}: must lie between warmup_epochs="
                f"{search.warmup_epochs} and epochs={search.epochs}, both excluded"
            )
        num_options = len(getattr(search.space, "operations", ()))
        if 0 < num_options < self.keep[0]:
            raise ValueError(
                f"pruning.keep is {self.keep}: space.operations has only {num_options} options"
            )


@dataclass(kw_only=True, slots=True)
class SearchConfig(RunConfig):
    """Settings of `search.py`."""

    warmup_epochs: int = 0  # first epochs in which only the weights are trained
    update_unsampled: bool = False  # decay and momentum also for operations that were not sampled
    recalibration_batches: int = 10  # for space.track_running_stats, before a genotype is scored
    kernels: str = "auto"  # plain, fused, compiled, graphs; auto: fused on a CPU, graphs on a GPU
    space: Any = MISSING  # what is searched
    sampler: Any = MISSING  # how architectures are drawn, and their gradient
    bilevel: Any = MISSING  # which updates weights and logits get, in which order
    derive: Any = MISSING  # how the genotype is chosen at the end
    budget: Any = MISSING  # limit on what the genotype may cost
    logits: OptimizerSettings = MISSING  # optimiser of the architecture logits
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)  # logits to start from
    pruning: PruningConfig = field(default_factory=PruningConfig)  # drops options during the search
    collapse: CollapseSettings = field(default_factory=CollapseSettings)  # to skip connections
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)  # table for looking up only

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        at_least("", self, batch_size=2, warmup_epochs=0, recalibration_batches=0)
        if self.kernels not in KERNELS:
            raise ValueError(unknown_name("kernels", self.kernels, KERNELS, "kernels"))
        if self.kernels == "graphs":
            self._check_graphs()
        self.logits.check("logits")
        groups = getattr(self.bilevel, "groups", 1)
        if self.batch_size % groups or self.batch_size < 2 * groups:
            raise ValueError(
                f"bilevel.groups is {groups}: must divide batch_size={self.batch_size} without "
                "rest, into groups of at least 2 images, as batch norm normalises within a group"
            )
        self.pruning.check(self)
        check_budget(self.budget, self.derive)
        self.collapse.check("collapse", learns=SAMPLERS.get(self.sampler.name).learns)
        if getattr(self.space, "edge_normalization", False) and (
            SAMPLERS.get(self.sampler.name).one_path
        ):
            dense = [name for name in SAMPLERS if not SAMPLERS.get(name).one_path]
            raise ValueError(
                f"space.edge_normalization is learnt from mixtures of all operations, which "
                f"sampler={self.sampler.name} does not run: set it to false, or sampler to one of "
                f"{', '.join(sorted(dense))}"
            )
        if not SAMPLERS.get(self.sampler.name).learns and self.derive.name == "argmax":
            raise ValueError(
                f"derive=argmax reads the logits, which sampler={self.sampler.name} does not "
                "train: use derive=sampled, derive=local_search or derive=perturbation"
            )
        only_warms_up = self.warmup_epochs >= self.epochs and self.warm_start.score is None
        if only_warms_up and self.derive.name == "argmax":
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}: leaves none of epochs={self.epochs} to "
                "train the logits, which derive=argmax reads: lower it, or take another derivation"
            )
        if SAMPLERS.get(self.sampler.name).learns_from_losses:
            if self.bilevel.name != "first_order" or self.bilevel.logits_samples == 1:
                raise ValueError(
                    f"sampler={self.sampler.name} compares the losses of several samples: set "
                    "bilevel=first_order, and bilevel.logits_samples to null or at least 2"
                )
        if getattr(self.bilevel, "baseline", "none") != "none":
            sampler = SAMPLERS.get(self.sampler.name)
            if not (sampler.learns and sampler.one_path) or sampler.learns_from_losses:
                raise ValueError(
                    f"bilevel.baseline is {self.bilevel.baseline}: it is for inner products of one "
                    f"path, which sampler={self.sampler.name} does not learn from; set it to none"
                )
        if self.bilevel.name == "second_order" and self.weights.name != "sgd":
            raise ValueError(
                f"bilevel=second_order unrolls SGD, weights.name is {self.weights.name}: "
                "set weights.name=sgd"
            )

    def _check_graphs(self) -> None:
        if not SAMPLERS.get(self.sampler.name).one_path:
            foreign = f"sampler={self.sampler.name} runs all of them"
        elif self.bilevel.name == "single_level":
            foreign = "bilevel=single_level trains weights and logits in one pass"
        elif self.precision == "bf16":
            foreign = "precision=bf16 casts in between"
        else:
            return
        raise ValueError(
            f"kernels=graphs records one operation a choice and one way back at a time, {foreign}: "
            "set kernels to auto"
        )


@dataclass(kw_only=True, slots=True)
class RetrainConfig(RunConfig):
    """Settings of `retrain.py`."""

    genotype: str = MISSING  # genotype.json, run folder, text form or published name
    network: NetworkConfig = field(default_factory=NetworkConfig)  # sizes of the network
    eval_batch_size: int = 256  # images of a forward pass over the test set
    auxiliary_weight: float = 0.0  # of the auxiliary head's loss; 0: no such head
    drop_path: float = 0.0  # probability of dropping a path: 0 in epoch 1, this after the last
    label_smoothing: float = 0.0  # share of a label that all classes get
    ema_decay: float = 0.0  # moving average of the weights, per step; 0: none
    compile: bool = False  # torch.compile of the network

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        at_least("", self, batch_size=2, eval_batch_size=1, auxiliary_weight=0)
        for name in ("drop_path", "label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must lie in [0, 1)")


SCHEMAS = {
    "search": SearchConfig,
    "retrain": RetrainConfig,
    "profile": ProfileConfig,
    "export": ExportConfig,
    "data": DataSettings,
    "nasbench201": NASBench201Config,
    "custom": CustomConfig,
    "mobilenet": MobileNetConfig,
    "vit": ViTConfig,
    "no_budget": NoBudgetConfig,
    "counted_budget": CountedBudgetConfig,
    "latency_budget": LatencyBudgetConfig,
    "darts": DARTSConfig,
    "sampler": SamplerConfig,
    "temperature_sampler": TemperatureSamplerConfig,
    "first_order": FirstOrderConfig,
    "second_order": SecondOrderConfig,
    "single_level": SingleLevelConfig,
    "argmax": ArgmaxConfig,
    "sampled": SampledConfig,
    "local_search": LocalSearchConfig,
    "perturbation": PerturbationConfig,
}
"""By their names in Hydra's group `schema`; `conf/outline.py` reads them from this text."""


def register_schemas() -> None:
    """Makes the schemas known to Hydra."""
    for name, node in SCHEMAS.items():
        ConfigStore.instance().store(group="schema", name=name, node=node)
