"""`model.json`: what a trained network is, what it takes and how good it is.

It lies beside `genotype.json` and `model.safetensors`, in the folder of a retraining and in an
export. The three files are all that a network is built from, and none of them can run code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas.data.preprocessing import Preprocessing
from nas.errors import UserError, reason

FORMAT_VERSION = 1
DESCRIPTION = "model.json"
GENOTYPE = "genotype.json"
WEIGHTS = "model.safetensors"

Facts = Mapping[str, Any]
"""Numbers, texts and lists by name, for people to read."""


@dataclass(frozen=True)
class Difference:
    """How far an exported network is from the network itself, over some images.

    Attributes:
        largest: Largest absolute difference of a logit.
        largest_logit: Largest absolute logit, to compare it with.
    """

    largest: float
    largest_logit: float

    @property
    def relative(self) -> float:
        """The difference as a share of the largest logit; 0 where all logits are 0 and agree."""
        return self.largest / self.largest_logit if self.largest_logit else self.largest


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """The content of `model.json`.

    Attributes:
        space: Name of the search space, that of the genotype.
        sizes: Of the network, by the names that the space has for them.
        class_names: Names of the classes, in the order of the logits.
        preprocessing: What an image goes through.
        model: Dotted name of the class or function of the user's that the network is made from;
            None but for the space `custom`. It is a record: no file decides what is imported.
        arguments: Given to it.
        data: What the network was trained and measured on.
        recipe: How it was trained.
        accuracy: On the test images, in percent, and of which weights.
        cost: Of the network and of its training.
        release: Of this program, that trained the network.
        differences: Of the exported formats by name; empty but in an export.
    """

    space: str
    sizes: Mapping[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    model: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    data: Facts = field(default_factory=dict)
    recipe: Facts = field(default_factory=dict)
    accuracy: Facts = field(default_factory=dict)
    cost: Facts = field(default_factory=dict)
    release: str = "unknown"
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def to_json(self) -> str:
        """Returns the text of `model.json`."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: Path) -> "ModelDescription":
        """Reads a `model.json`.

        Raises:
            UserError: the file cannot be read, is none, or is of another format version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not valid JSON ({error})") from None
        if not isinstance(content, dict) or "format_version" not in content:
            raise UserError(f"{path}: does not describe a network (no 'format_version')")
        found = content.pop("format_version")
        if type(found) is not int or found != FORMAT_VERSION:
            raise UserError(
                f"{path}: format version {found!r} is not supported, this release reads version "
                f"{FORMAT_VERSION}"
            )
        try:
            return _from_content(content)
        except KeyError as error:
            raise UserError(f"{path}: lacks the field {error}") from None
        except (AttributeError, TypeError, ValueError, UserError) as error:
            raise UserError(f"{path}: a field is wrong ({error})") from None


def _from_content(content: dict[str, Any]) -> ModelDescription:
    """Fields that this release does not know are left out."""
    images = _mapping(content["preprocessing"])
    facts = {name: _mapping(content[name]) for name in ("data", "recipe", "accuracy", "cost")}
    return ModelDescription(
        space=_text(content["space"]),
        sizes={name: _size(value) for name, value in _mapping(content["sizes"]).items()},
        class_names=tuple(map(_text, _list(content["class_names"]))),
        preprocessing=Preprocessing(
            _whole(images["in_channels"]),
            _whole(images["image_size"]),
            _text(images["resize"]),
            tuple(map(_number, _list(images["mean"]))),
            tuple(map(_number, _list(images["std"]))),
        ),
        model=None if content["model"] is None else _text(content["model"]),
        arguments=_mapping(content["arguments"]),
        release=_text(content["release"]),
        differences={
            name: Difference(_number(found["largest"]), _number(found["largest_logit"]))
            for name, found in _mapping(content["differences"]).items()
        },
        **facts,
    )


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected names with values, got {value!r}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _size(value: object) -> Any:
    return tuple(map(_number_as_it_is, value)) if isinstance(value, list) else _scalar(value)


def _number_as_it_is(value: object) -> int | float:
    _number(value)
    return value  # type: ignore[return-value]


def _scalar(value: object) -> int | float | str:
    return value if isinstance(value, str) else _number_as_it_is(value)
