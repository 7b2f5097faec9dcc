"""Differentiable neural architecture search with one-path supernets.

What a model of your own is made searchable with: put choices into it, search with
`python search.py space=custom space.model=my_package.MyNet`, and `derive` the plain model.
"""

from nas.choice import Choice, InputChoice, Repeat
from nas.plain import derive
from nas.values import ValueChoice

__all__ = ["Choice", "InputChoice", "Repeat", "ValueChoice", "derive"]
