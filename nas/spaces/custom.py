"""The space of a user's own model: `space.model=my_package.MyNet`, any module with choices."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from nas.errors import UserError, unknown_name
from nas.genotype import Size
from nas.spaces.model import ModelSpace
from nas.spaces.space import SPACES


@SPACES.register("custom")
@dataclass(frozen=True)
class Custom(ModelSpace):
    """What a class or function of the user's builds.

    Attributes:
        in_channels: Given to it where it has a parameter of that name.
        num_classes: Likewise.
        model: It, or its dotted name, which is imported, and so run: a setting of the user's, which
            no file that is read can bring.
        arguments: Further arguments by name.
    """

    in_channels: int
    num_classes: int
    model: str | Callable[..., Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "custom"

    @property
    def model_name(self) -> str:
        """How the model is called."""
        return self.model if isinstance(self.model, str) else dotted_name(self.model)

    def sizes(self) -> dict[str, Size]:
        """None: a file must not bring the name of what is imported."""
        return {}

    def build_supernet(self) -> nn.Module:
        """The user's model.

        Raises:
            UserError: it cannot be imported or built, or is no `nn.Module`.
        """
        if self.model is None:
            raise UserError(
                "this architecture is of a model of your own: name its class or function, as in "
                "the search (retrain: network.model=my_package.MyNet; nas.retrain: model=MyNet)"
            )
        factory = import_factory(self.model) if isinstance(self.model, str) else self.model
        given = dict(self.arguments)
        known = _parameters(factory)
        for name in ("in_channels", "num_classes"):
            if name in known:
                given.setdefault(name, getattr(self, name))
        foreign = [name for name in given if name not in known]
        if foreign and "**" not in known:
            kind = f"argument of {self.model_name}"
            raise unknown_name(kind, foreign[0], known, "space.arguments")
        try:
            model = factory(**given)
        except TypeError as error:
            raise UserError(f"space.model={self.model_name} cannot be built: {error}") from error
        if not isinstance(model, nn.Module):
            raise UserError(
                f"space.model={self.model_name} makes an object of type {type(model).__name__}: it "
                "must make an nn.Module"
            )
        return model


def dotted_name(factory: object) -> str:
    """The name by which a class or function could be imported."""
    named = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{named.__module__}.{named.__qualname__}"


def import_factory(name: str, key: str = "space.model") -> Callable[..., Any]:
    """The class or function of the dotted `name`, from the present folder or an installed package.

    Raises:
        UserError: there is none.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{key} is '{name}': must be like my_package.MyNet")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{key}: {module_name} needs the module '{error.name}'") from None
        raise UserError(
            f"{key}: no module '{error.name}' in {os.getcwd()} or among the installed packages"
        ) from None
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise unknown_name(f"class or function of {module_name}", attribute, names, key)
    return found  # type: ignore[no-any-return]


def _parameters(factory: Callable[..., Any]) -> list[str]:
    """Names of the parameters; `**` where any name will do."""
    found = []
    for name, parameter in inspect.signature(factory).parameters.items():
        any_name = parameter.kind is inspect.Parameter.VAR_KEYWORD
        found.append("**" if any_name else name)
    return found
