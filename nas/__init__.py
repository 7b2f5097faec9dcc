"""Differentiable neural architecture search with one-path supernets.

What a model of your own is made searchable with: put choices into it, search with
`search` (or `python search.py space=custom space.model=my_package.MyNet`), `derive` the plain model
and `retrain` it. Of a trained network, `load` gives the module and `Predictor` labels for images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conf.api import retrain, search
    from nas.choice import Choice, InputChoice, Repeat
    from nas.deploy.load import load
    from nas.deploy.predictor import Predictor
    from nas.errors import UserError
    from nas.plain import derive
    from nas.values import ValueChoice

__all__ = [
    "Choice",
    "InputChoice",
    "Predictor",
    "Repeat",
    "UserError",
    "ValueChoice",
    "derive",
    "load",
    "retrain",
    "search",
]

# Imported when they are asked for: PyTorch and torchvision take seconds, which neither `--help`
# nor a model with choices in it need wait for.
_LATER = {
    "Choice": "nas.choice",
    "InputChoice": "nas.choice",
    "Predictor": "nas.deploy.predictor",
    "Repeat": "nas.choice",
    "UserError": "nas.errors",
    "ValueChoice": "nas.values",
    "derive": "nas.plain",
    "load": "nas.deploy.load",
    # The settings of the programs, with Hydra, which nothing else in `nas` imports.
    "retrain": "conf.api",
    "search": "conf.api",
}


def __dir__() -> list[str]:
    """What `import nas` has, for completion: names that are imported later are not in globals."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
