"""Numbers that a model leaves open: widths, kernel sizes, expansions, numbers of heads.

A `ValueChoice` is one of several numbers; `4 * width`, `ratio * width` or `width // 8` follow it.
The layers of `nas.elastic` take them as sizes and share one set of weights between all values.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from numbers import Real

import torch
from torch import Tensor, nn

from nas.choice import Decision
from nas.errors import UserError

Number = int | float


class _Arithmetic:
    """What can be done with a number that is open."""

    def _value(self) -> "Value":
        raise NotImplementedError

    def __mul__(self, other: "Size") -> "Value":
        return _combined(lambda a, b: a * b, self, other)

    __rmul__ = __mul__

    def __add__(self, other: "Size") -> "Value":
        return _combined(lambda a, b: a + b, self, other)

    __radd__ = __add__

    def __floordiv__(self, other: "Size") -> "Value":
        return _combined(lambda a, b: a // b, self, other)


class ValueChoice(_Arithmetic, Decision):
    """One of several numbers."""

    def __init__(self, values: Sequence[Number], name: str | None = None) -> None:
        """Args:
        values: The numbers; that of the first holds until another is decided for.
        name: See `nas.choice.Decision`.
        """
        super().__init__(tuple(map(_text, values)), name)
        self.values = tuple(values)

    def _value(self) -> "Value":
        return Value((self,), lambda value: value)

    @property
    def value(self) -> Number:
        """The present number; while several are mixed, the largest of all."""
        return self._value().value

    def derived(self) -> nn.Module:
        return FixedValue(self.values[self._index])


class FixedValue(_Arithmetic, nn.Module):
    """A number that was decided: what is left of a `ValueChoice`, with the same arithmetic."""

    def __init__(self, value: Number) -> None:
        super().__init__()
        self.value = value

    def _value(self) -> "Value":
        return Value((), lambda: self.value)

    def extra_repr(self) -> str:
        return str(self.value)


class Value(_Arithmetic):
    """A number that follows from choices of others.

    Attributes:
        sources: The choices.
    """

    def __init__(self, sources: Sequence[ValueChoice], function: Callable[..., Number]) -> None:
        """Args:
        sources: The choices.
        function: Of one number of each.
        """
        self.sources, self._function = tuple(sources), function
        self._table = {
            indices: function(*(s.values[i] for s, i in zip(self.sources, indices, strict=True)))
            for indices in product(*(range(len(s.values)) for s in self.sources))
        }
        self._largest = max(self._table.values())

    def _value(self) -> "Value":
        return self

    @property
    def largest(self) -> Number:
        """The largest number that it can be."""
        return self._largest

    @property
    def possible(self) -> list[Number]:
        """All numbers that it can be, in ascending order."""
        return sorted(set(self._table.values()))

    @property
    def value(self) -> Number:
        """The present number; while several are mixed, the largest of all."""
        if any(source._weights is not None for source in self.sources):
            return self._largest
        return self._table[tuple(source.index for source in self.sources)]

    def weights(self) -> dict[Number, Tensor] | None:
        """The weight of each number in the present mixture; None where there is none."""
        if not any(source._weights is not None for source in self.sources):
            return None
        found: dict[Number, Tensor] = {}
        for indices, value in self._table.items():
            factors: dict[tuple[object, int], Tensor | None] = {}
            for source, index in zip(self.sources, indices, strict=True):
                assert source._weights is not None, "choices are mixed together or not at all"
                factors[source._name or source, index] = source._weights[index]
            if len({of for of, _ in factors}) < len(factors):
                continue  # choices of one name are one decision, which has one outcome
            known = [factor for factor in factors.values() if factor is not None]
            if len(known) == len(factors):
                weight = prod(known[1:], start=known[0])
                found[value] = found[value] + weight if value in found else weight
        return found

    def gated(self, out: Tensor) -> Tensor:
        """Returns `out` with the gradients that the choices ask for."""
        for source in self.sources:
            out = source.gated(out)
        return out


Size = Number | ValueChoice | Value


def whole(size: Size, what: str) -> Value:
    """`size` as a value that is a whole number of at least 1 whatever is chosen.

    Raises:
        UserError: it can be another, or is no number; `what` is named.
    """
    if not isinstance(size, Real | _Arithmetic):
        raise UserError(f"{what} is {size!r}: must be one number, or follow from a ValueChoice")
    value = size._value() if isinstance(size, _Arithmetic) else Value((), lambda: size)
    for possible in value.possible:
        if not is_whole(possible) or round(possible) < 1:
            raise UserError(f"{what} can be {possible:g}: must be a whole number of at least 1")
    if all(possible == int(possible) for possible in value.possible):
        return value
    return Value(value.sources, lambda *numbers: round(value._function(*numbers)))


def is_whole(value: Number) -> bool:
    """Whether `value` is a whole number, but for rounding: 0.7 * 90 is 62.99999999999999."""
    return abs(value - round(value)) <= 1e-9 * abs(value)


def number(value: Value) -> int:
    """The present number of a `whole` value."""
    return int(value.value)


def mixed_mask(value: Value, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """`[largest]`: the weight of each of the elements of which the first so many are used.

    None where nothing is mixed.
    """
    weights = value.weights()
    if weights is None:
        return None
    positions = torch.arange(int(value.largest), device=device)
    terms = [w.to(dtype) * (positions < int(v)) for v, w in weights.items()]
    return sum(terms[1:], terms[0])


def _combined(function: Callable[[Number, Number], Number], a: "_Arithmetic", b: Size) -> Value:
    first = a._value()
    if not isinstance(b, _Arithmetic):
        constant = b
        return Value(first.sources, lambda *v: function(first._function(*v), constant))
    second = b._value()
    sources = tuple(dict.fromkeys((*first.sources, *second.sources)))
    positions = [[sources.index(s) for s in value.sources] for value in (first, second)]

    def both(*values: Number) -> Number:
        left, right = ([values[p] for p in of] for of in positions)
        return function(first._function(*left), second._function(*right))

    return Value(sources, both)


def _text(value: Number) -> str:
    return f"{value:g}"
