"""Stops a run whose numbers have left the finite."""

import math

from nas.errors import UserError


class NonFiniteLossError(UserError):
    """A loss or gradient is NaN or infinite; the last checkpoint is from before it."""


def check_finite(value: float, what: str) -> None:
    """Raises `NonFiniteLossError` if `value` is NaN or infinite."""
    if not math.isfinite(value):
        raise NonFiniteLossError(
            f"the {what} is {value}: lower the learning rate (weights.learning_rate, "
            "logits.learning_rate) or set a clip_norm; the last checkpoint is from before it"
        )
