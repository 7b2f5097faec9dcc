"""Differentiable neural architecture search with one-path supernets.

What a model of your own is made searchable with: put choices into it, search with
`python search.py space=custom space.model=my_package.MyNet`, and `derive` the plain model. Of a
trained network, `load` gives the module and `Predictor` labels for images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nas.choice import Choice, InputChoice, Repeat
from nas.plain import derive
from nas.values import ValueChoice

if TYPE_CHECKING:
    from nas.deploy.load import load
    from nas.deploy.predictor import Predictor

__all__ = ["Choice", "InputChoice", "Predictor", "Repeat", "ValueChoice", "derive", "load"]

# Imported when they are asked for: torchvision takes seconds, which models with choices in them
# need not wait for.
_LATER = {"load": "nas.deploy.load", "Predictor": "nas.deploy.predictor"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
