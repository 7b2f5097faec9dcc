"""Spaces of any model with choices in it: no cells, every choice stands for itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from typing import ClassVar

from torch import Tensor, nn

from nas.choice import decisions
from nas.errors import UserError
from nas.genotype import Genotype, Key, Size
from nas.plain import check_choices, derive, reached
from nas.spaces.space import without_weights


class ModelSpace(ABC):
    """What all such spaces share; those that there are build different models.

    Attributes:
        never_derived: Nothing: a choice that may not be made should not be offered.
        has_cells: Whether genotypes are cells, which can be drawn and run by fused kernels.
    """

    name: ClassVar[str]
    never_derived: ClassVar[frozenset[str]] = frozenset()
    has_cells: ClassVar[bool] = False

    @abstractmethod
    def build_supernet(self) -> nn.Module:
        """The model with its choices."""

    @cached_property
    def _model(self) -> nn.Module:
        """The model, without weights if it can be; its choices have their names."""
        model = without_weights(self.build_supernet)
        decisions(model)
        return model

    @cached_property
    def _options(self) -> dict[str, tuple[str, ...]]:
        return {name: modules[0].options for name, modules in decisions(self._model).items()}

    def options_of(self, name: str) -> tuple[str, ...]:
        """The options of choice `name`."""
        return self._options[name]

    def derive(self, scores: Mapping[str, Tensor]) -> Genotype:
        """The best option of each choice; ties go to the earlier one."""
        choices = {
            name: options[int(scores[name].argmax())] for name, options in self._options.items()
        }
        return Genotype(self.name, (), choices, sizes=self.sizes())

    def sizes(self) -> dict[str, Size]:
        """What the choices mean nothing without: the fields of the space but those of the data."""
        assert is_dataclass(self)
        names = [f.name for f in fields(self) if f.name not in ("in_channels", "num_classes")]
        return {name: getattr(self, name) for name in names}

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """The genotypes that differ in the option of one choice."""
        for name, present in genotype.choices.items():
            for option in self._options[name]:
                if option != present:
                    choices = {**genotype.choices, name: option}
                    yield replace(genotype, choices=choices, confidence={})

    def key(self, genotype: Genotype) -> Key:
        """The choices but those of blocks and candidates that it leaves out."""
        return tuple(sorted(reached(self._model, genotype.choices).items()))

    def build_network(self, genotype: Genotype, *, auxiliary: bool = False) -> nn.Module:
        """The plain network of `genotype`; sizes that were open are initialised as PyTorch does.

        Raises:
            UserError: the genotype does not fit, or an auxiliary head is asked for.
        """
        if auxiliary:
            raise UserError(f"auxiliary_weight: networks of space '{self.name}' have no such head")
        model = self.build_supernet()
        check_choices(model, genotype.choices)
        return derive(model, genotype, inherit=False)
