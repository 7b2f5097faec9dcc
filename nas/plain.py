"""From a model with choices to the plain model of one genotype."""

import copy
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import nn

from nas.choice import Decision, decisions
from nas.elastic import ELASTIC
from nas.errors import UserError, unknown_name
from nas.genotype import Genotype
from nas.values import FixedValue, Value


@runtime_checkable
class Derivable(Protocol):
    """A module of a searchable model that knows its plain form: choices, layers of open sizes."""

    def derived(self) -> nn.Module:
        """The plain module under the present decisions; it may have choices inside."""


def derive(
    model: nn.Module, genotype: Genotype | Mapping[str, str], *, inherit: bool = True
) -> nn.Module:
    """The plain model that `genotype` makes of `model`, with a copy of the weights that it uses.

    Nothing of the search is left in it, and its outputs are those of `model` under that genotype.

    Args:
        model: With choices in it; it is left as it is, but that choices get their names.
        genotype: Option by the name of the choice.
        inherit: Whether layers of open sizes pass on their weights. To be trained from scratch a
            smaller layer should rather start as PyTorch initialises one of its size.

    Raises:
        UserError: the genotype lacks a choice, or has one that is not in the model.
    """
    chosen = genotype.choices if isinstance(genotype, Genotype) else genotype
    check_choices(model, chosen)
    plain = copy.deepcopy(model)
    decide(plain, chosen)
    return _plain(plain, {}, inherit)


def decide(model: nn.Module, choices: Mapping[str, str]) -> None:
    """Makes `model` run what `choices` (option by name of the choice) say."""
    for name, modules in decisions(model).items():
        for module in modules:
            module.release()
            module.select(module.options.index(choices[name]))


def check_choices(model: nn.Module, choices: Mapping[str, str]) -> None:
    """Raises a `UserError` unless `choices` has an option for each choice of `model`."""
    found = decisions(model)
    for name, option in choices.items():
        if name not in found:
            raise unknown_name("choice", name, found, "genotype")
        if option not in found[name][0].options:
            raise unknown_name(f"option of choice '{name}'", option, found[name][0].options)
    missing = [name for name in found if name not in choices]
    if missing:
        raise UserError(f"the genotype has no option for the choice '{missing[0]}' of the model")


def reached(model: nn.Module, choices: Mapping[str, str]) -> dict[str, str]:
    """Those of `choices` (option by name of the choice) that the plain model depends on.

    What is open inside candidates and blocks that were not chosen decides nothing.
    """
    names: set[str] = set()
    seen: set[nn.Module] = set()
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        numbers = [value for value in vars(module).values() if isinstance(value, Value)]
        names.update(source.name for value in numbers for source in value.sources)
        if isinstance(module, Decision):
            names.add(module.name)
            waiting.extend(module.parts(module.options.index(choices[module.name])))
        else:
            waiting.extend(module.children())
    return {name: option for name, option in choices.items() if name in names}


def _plain(module: nn.Module, known: dict[nn.Module, nn.Module], inherit: bool) -> nn.Module:
    """`module` and all inside it in plain form; a module that is used twice stays one."""
    if module not in known:
        derived = module
        while isinstance(derived, Derivable):
            derived, before = derived.derived(), derived
            if isinstance(before, ELASTIC) and not inherit:
                derived.reset_parameters()  # type: ignore[operator]
        known[module] = known[derived] = derived
        # Not named_children, which passes over a module that has come before.
        for name, child in list(derived._modules.items()):
            if child is not None:
                setattr(derived, name, _plain(child, known, inherit))
        for name, value in list(vars(derived).items()):
            if isinstance(value, Value):
                setattr(derived, name, FixedValue(value.value))
    return known[module]
