"""Differentiable neural architecture search with one-path supernets.

What a model of your own is made searchable with: put choices into it, search with
`python search.py space=custom space.model=my_package.MyNet`, and `derive` the plain model. Of a
trained network, `load` gives the module and `Predictor` labels for images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.choice import Choice, InputChoice, Repeat
    from nas.deploy.load import load
    from nas.deploy.predictor import Predictor
    from nas.plain import derive
    from nas.values import ValueChoice

__all__ = ["Choice", "InputChoice", "Predictor", "Repeat", "ValueChoice", "derive", "load"]

# Imported when they are asked for: PyTorch and torchvision take seconds, which neither `--help`
# nor a model with choices in it need wait for.
_LATER = {
    "Choice": "nas.choice",
    "InputChoice": "nas.choice",
    "Predictor": "nas.deploy.predictor",
    "Repeat": "nas.choice",
    "ValueChoice": "nas.values",
    "derive": "nas.plain",
    "load": "nas.deploy.load",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
