"""Schemas of the group `derive`."""

from dataclasses import dataclass, field

from conf.network_schema import NetworkConfig
from conf.ranges import at_least
from nas.deriving.scores import SCORES
from nas.errors import unknown_name
from nas.training.scoring import TUNING, VALIDATION


@dataclass(kw_only=True, slots=True)
class ArgmaxConfig:
    """Derive the most probable options."""

    name: str = "argmax"


@dataclass(kw_only=True, slots=True)
class SampledConfig:
    """Derive the best of `num_samples` genotypes drawn from the logits, on validation data."""

    name: str = "sampled"
    num_samples: int = 100  # genotypes that are drawn
    max_images: int | None = None  # validation images for each; null: all

    def __post_init__(self) -> None:
        at_least("derive", self, num_samples=1)
        if self.max_images is not None:
            at_least("derive", self, max_images=1)


@dataclass(kw_only=True, slots=True)
class PerturbationConfig:
    """Derive by what the supernet loses without each option."""

    name: str = "perturbation"
    num_paths: int = 8  # that an accuracy is the mean of, with a sampler of one path
    max_images: int | None = None  # validation images for each accuracy; null: all
    tuning_steps: int = 200  # updates of the weights between two decisions

    def __post_init__(self) -> None:
        at_least("derive", self, num_paths=1, tuning_steps=0)
        if self.max_images is not None:
            at_least("derive", self, max_images=1)


@dataclass(kw_only=True, slots=True)
class LocalSearchConfig(SampledConfig):
    """From genotypes drawn from the logits to the best by single changes, as the judges rank."""

    name: str = "local_search"
    judges: list[str] = field(default_factory=lambda: [VALIDATION])  # rank genotypes
    beam: int = 3  # the search ends when the neighbours of so many of the best have been judged
    max_evaluations: int = 500  # genotypes that are judged at most
    finalists: int = 0  # so many of the best are trained alone, then neighbours of the best
    final_trainings: int = 60  # finalists and neighbours that are trained at most
    final_steps: int = 100  # steps of each of these trainings
    playoff: int = 0  # so many of the best are trained on, which weighs as much as all before
    playoff_steps: int = 300  # steps of these, with those of before
    network: NetworkConfig = field(default_factory=NetworkConfig)  # sizes of the finalists

    def __post_init__(self) -> None:
        SampledConfig.__post_init__(self)
        at_least("derive", self, beam=1, max_evaluations=1, finalists=0, final_steps=2)
        at_least("derive", self, playoff=0, playoff_steps=2)
        if self.final_trainings < self.finalists:
            raise ValueError(
                f"derive.final_trainings must be at least derive.finalists = {self.finalists}, got "
                f"{self.final_trainings}"
            )
        if self.playoff > self.finalists:
            raise ValueError(
                f"derive.playoff must be at most derive.finalists = {self.finalists}, got "
                f"{self.playoff}"
            )
        known = (VALIDATION, TUNING, *SCORES)
        for name in self.judges:
            if name not in known:
                raise ValueError(unknown_name("judge", name, known, "derive.judges"))
        if len(set(self.judges)) < len(self.judges):
            raise ValueError(f"derive.judges must be different names, got {list(self.judges)}")
        if not self.judges and self.finalists == 0:
            raise ValueError("derive.judges may be empty only where derive.finalists is above 0")
