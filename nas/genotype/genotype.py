"""The discrete result of a search and its file form, `genotype.json`.

A genotype maps the name of each choice to the option that was chosen. In a cell space the choices
are edges, named `cell/source->target`; nodes are numbered with the cell's inputs first. An edge
that the cell does not keep (a DARTS node keeps two inputs) is not in the map. Text forms
(NAS-Bench-201 strings, DARTS `Genotype(...)`) are views of it that belong to the spaces.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.errors import UserError, reason

FORMAT_VERSION = 1

Key = tuple[tuple[str, str], ...]
"""Choices and their options, sorted: what tells architectures apart."""

Size = int | float | tuple[int | float, ...]

# One spelling an edge (no leading zeros): choices are looked up by name.
_NODE = r"(?:0|[1-9][0-9]{0,5})"
_EDGE_NAME = re.compile(rf"(?P<cell>\w+)/(?P<source>{_NODE})->(?P<target>{_NODE})")


@dataclass(frozen=True, order=True)
class Edge:
    """One edge of a cell, from node `source` to node `target` (inputs are the first nodes)."""

    cell: str
    target: int
    source: int

    @property
    def name(self) -> str:
        return f"{self.cell}/{self.source}->{self.target}"

    @classmethod
    def parse(cls, name: str) -> "Edge":
        """Reads `cell/source->target`.

        Raises:
            ValueError: `name` is not of that form.
        """
        match = _EDGE_NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} does not name an edge (cell/source->target)")
        return cls(match["cell"], int(match["target"]), int(match["source"]))


@dataclass(frozen=True)
class Confidence:
    """How sure a derivation is of one choice.

    `probability` is that of the chosen option; `margin` its distance to the best other option
    that could have been chosen; `entropy` that of all options, divided by its maximum (0: certain,
    1: uniform).
    """

    probability: float
    margin: float
    entropy: float


@dataclass(frozen=True)
class Genotype:
    """A discrete architecture: the space it belongs to and the option of each choice.

    Attributes:
        space: Name of the search space.
        operations: The candidate operations that the search chose from, in the order of the logits.
        choices: Option by choice name; in cell spaces an operation by edge name.
        confidence: What the derivation knows of its certainty, by choice name; may be empty.
        sizes: Of the searched network, by name, where the choices mean nothing without them (macro
            spaces); empty for cells, which go into networks of any size.
    """

    space: str
    operations: tuple[str, ...]
    choices: Mapping[str, str]
    confidence: Mapping[str, Confidence] = field(default_factory=dict, compare=False)
    sizes: Mapping[str, Size] = field(default_factory=dict, compare=False)

    def edges(self, cell: str) -> list[tuple[Edge, str]]:
        """Returns the edges of `cell` with their operations, by target and then source."""
        edges = ((Edge.parse(name), option) for name, option in self.choices.items())
        return sorted((edge, option) for edge, option in edges if edge.cell == cell)

    def cells(self) -> list[str]:
        """Returns the names of the cells, in order of first appearance."""
        return list(dict.fromkeys(Edge.parse(name).cell for name in self.choices))

    def to_json(self) -> str:
        """Returns the text of `genotype.json`."""
        confidence = {
            name: {
                "probability": c.probability,
                "margin": c.margin,
                "entropy": c.entropy,
            }
            for name, c in self.confidence.items()
        }
        content = {
            "format_version": FORMAT_VERSION,
            "space": self.space,
            "operations": list(self.operations),
            "choices": dict(self.choices),
            "confidence": confidence,
            **({"sizes": dict(self.sizes)} if self.sizes else {}),
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "genotype") -> "Genotype":
        """Reads the text of a `genotype.json`; `source` is the file to name in errors.

        Raises:
            UserError: not JSON, a field is missing or of the wrong type, or the format is newer.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source}: not valid JSON ({error})") from None
        if not isinstance(content, dict) or "format_version" not in content:
            raise UserError(f"{source}: not a genotype file (no 'format_version')")
        version = content["format_version"]
        if type(version) is not int or version != FORMAT_VERSION:
            raise UserError(
                f"{source}: format version {version!r} is not supported, this release reads "
                f"version {FORMAT_VERSION}"
            )
        try:
            return cls(
                space=_text(content["space"]),
                operations=_texts(content["operations"]),
                choices={_text(k): _text(v) for k, v in content["choices"].items()},
                confidence={
                    _text(name): Confidence(
                        float(c["probability"]), float(c["margin"]), float(c["entropy"])
                    )
                    for name, c in content.get("confidence", {}).items()
                },
                sizes={_text(k): _size(v) for k, v in content.get("sizes", {}).items()},
            )
        except KeyError as error:
            raise UserError(f"{source}: the genotype lacks the field {error}") from None
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: a field has the wrong type ({error})") from None

    @classmethod
    def load(cls, path: Path) -> "Genotype":
        """Reads a `genotype.json`.

        Raises:
            UserError: the file cannot be read or is not a genotype.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the genotype file {path}: {reason(error)}") from None
        return cls.from_json(text, source=str(path))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _size(value: object) -> Size:
    if isinstance(value, list) and all(type(each) in (int, float) for each in value):
        return tuple(value)
    if type(value) in (int, float):
        return value  # type: ignore[return-value]
    raise TypeError(f"expected a number or a list of numbers, got {value!r}")


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return tuple(map(_text, value))
