"""How long a network takes on one device: a table of its operations, measured once and looked up.

The prediction is `slope * sum of the operations + per_operation * their number`. The two numbers
stand for what differs when operations follow each other (caches, the Python code between them) and
are fitted on whole networks.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nas.cost.tracing import trace
from nas.errors import UserError
from nas.files import replace_text

FORMAT_VERSION = 1

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a table is of.

    Attributes:
        space: Name of the search space whose operations it has.
        device: The processor's or accelerator's own name.
        torch: Version of PyTorch.
        precision: `float32`, `tf32`, or `bf16` (autocast).
        threads: CPU threads that share an operation.
        channels_last: Memory layout of images and weights.
        batch_size: Images at a time.
        in_channels: Channels of the images.
        image_size: Pixels a side.
    """

    space: str
    device: str
    torch: str
    precision: str
    threads: int
    channels_last: bool
    batch_size: int
    in_channels: int
    image_size: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From the times of single operations to that of the network.

    Attributes:
        slope: Factor of the sum of the times.
        per_operation_ms: Further milliseconds for each operation.
    """

    slope: float = 1.0
    per_operation_ms: float = 0.0

    @classmethod
    def fit(
        cls, sums_ms: Sequence[float], counts: Sequence[int], measured_ms: Sequence[float]
    ) -> "Calibration":
        """The one with the least squares of relative errors, neither number negative.

        Args:
            sums_ms: Sum of the operations of each network.
            counts: Number of the operations.
            measured_ms: What the whole network took.
        """
        from scipy.optimize import nnls  # slow to import, and only needed here

        columns = np.stack([np.array(sums_ms), np.array(counts, float)], 1)
        relative = columns / np.array(measured_ms)[:, None]
        (slope, per_operation), _ = nnls(relative, np.ones(len(measured_ms)))
        return cls(slope=float(slope), per_operation_ms=float(per_operation))

    def latency_ms(self, sum_ms: float, count: int) -> float:
        """The prediction for a network of `count` operations that take `sum_ms`."""
        return self.slope * sum_ms + self.per_operation_ms * count


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How good the predictions were for random networks that were not used for the calibration.

    Attributes:
        num_networks: How many were measured.
        median_percent: Median of |predicted / measured - 1|.
        mean_percent: Its mean.
        max_percent: Its maximum.
        spearman: Rank correlation of predictions and measurements; None where all are equal.
    """

    num_networks: int
    median_percent: float
    mean_percent: float
    max_percent: float
    spearman: float | None


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds by operation.

    Attributes:
        conditions: What they hold for.
        operations_ms: By the key of the operation (`nas.cost.tracing`).
        calibration: From their sum to the latency of the network.
        errors: Of checked predictions, where there were any.
        source: The file, to be named in errors.
    """

    conditions: Conditions
    operations_ms: Mapping[str, float]
    calibration: Calibration = Calibration()
    errors: Errors | None = None
    source: str = "the latency table"

    def predict(self, network: nn.Module) -> float:
        """Milliseconds that `network` takes for a batch, in evaluation.

        Runs a copy on PyTorch's meta device: no arithmetic is done.

        Raises:
            UserError: an operation is not in the table, or the network cannot take such images.
        """
        return self.predict_keys(operation_keys(network, self.conditions))

    def predict_keys(self, keys: Sequence[str]) -> float:
        """The same for a network that runs the operations `keys`."""
        for key in keys:
            if key not in self.operations_ms:
                raise UserError(
                    f"operation '{key}' is not in {self.source}: run nas-profile with the same "
                    "space, image size and batch size"
                )
        return self.calibration.latency_ms(sum(self.operations_ms[k] for k in keys), len(keys))

    def save(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        content = {
            "format_version": FORMAT_VERSION,
            "conditions": asdict(self.conditions),
            "calibration": asdict(self.calibration),
            "errors": None if self.errors is None else asdict(self.errors),
            "operations_ms": dict(self.operations_ms),
        }
        replace_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Reads what `save` wrote.

        Raises:
            UserError: the file cannot be read, is none, or is of another version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read the latency table {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not valid JSON ({error})") from None
        if not isinstance(content, dict) or not {"format_version", "operations_ms"} <= set(content):
            raise UserError(f"{path}: not a latency table (no 'format_version', 'operations_ms')")
        version = content["format_version"]
        if type(version) is not int or version != FORMAT_VERSION:
            raise UserError(
                f"{path}: format version {version!r} is not supported, this release reads version "
                f"{FORMAT_VERSION}"
            )
        try:
            errors = content["errors"]
            return cls(
                conditions=_read(Conditions, content["conditions"]),
                operations_ms={
                    key: _number(value, lowest=0.0)
                    for key, value in content["operations_ms"].items()
                },
                calibration=_read(Calibration, content["calibration"]),
                errors=None if errors is None else _read(Errors, errors),
                source=str(path),
            )
        except KeyError as error:
            raise UserError(f"{path}: the latency table lacks the field {error}") from None
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: a field has the wrong type ({error})") from None


def operation_keys(network: nn.Module, conditions: Conditions) -> list[str]:
    """The keys of what `network` runs on such images, in their order.

    Raises:
        UserError: the network cannot take them, or not without values (on the meta device).
    """
    model = copy.deepcopy(network).to("meta").eval()
    for module in model.modules():
        if type(module) in _SAME_SHAPE:
            module.forward = _same
    size = conditions.image_size
    shape = (conditions.batch_size, conditions.in_channels, size, size)
    try:
        return [operation.key for operation in trace(model, torch.empty(shape, device="meta"))]
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the network cannot run on images of {conditions.in_channels} channels and "
            f"{size}x{size} pixels on PyTorch's meta device: {reason}"
        ) from None


_SAME_SHAPE = frozenset(
    {nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish}
)
"""Layers whose output is like their input: to run them takes most of the time of a trace."""


def _same(x: Tensor) -> Tensor:
    return x


def _read(kind: type[Part], content: Any) -> Part:
    """An instance of the dataclass `kind`; its fields must be there and of their types."""
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        value = content[field.name]
        if field.type is float or (field.type == float | None and value is not None):
            value = _number(value)
        elif field.type in (str, int, bool) and type(value) is not field.type:
            raise TypeError(f"{field.name} is {value!r}")
        values[field.name] = value
    return kind(**values)


def _number(value: object, lowest: float = -math.inf) -> float:
    """A finite number of at least `lowest`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not lowest <= value < math.inf:  # type: ignore[operator]
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)  # type: ignore[arg-type]
