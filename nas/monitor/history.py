"""The probabilities of a search so far, epoch by epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PROBABILITY = "probability/"


@dataclass
class History:
    """What the logits of a search made of its choices over time.

    Attributes:
        epochs: Epochs done at each moment, ascending.
        choices: By choice and option, a probability for each of `epochs`; NaN where it is not
            known.
    """

    epochs: list[int] = field(default_factory=list)
    choices: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @classmethod
    def of_metrics(cls, lines: Sequence[Mapping[str, float | None]]) -> "History":
        """Reads it from lines of `metrics.jsonl`; those without an epoch tell nothing."""
        history = cls()
        for line in lines:
            epoch = line.get("epoch")
            if epoch is None or not math.isfinite(epoch):
                continue
            row: dict[str, dict[str, float]] = {}
            for name, value in line.items():
                if name.startswith(PROBABILITY):
                    choice, _, option = name.removeprefix(PROBABILITY).rpartition("/")
                    row.setdefault(choice, {})[option] = math.nan if value is None else value
            if row:
                history.add(int(epoch) + 1, row)
        return history

    def add(self, epochs_done: int, probabilities: Mapping[str, Mapping[str, float]]) -> None:
        """Adds one moment.

        Args:
            epochs_done: More than at the moment before.
            probabilities: By choice and option.
        """
        num_before = len(self.epochs)
        self.epochs.append(epochs_done)
        for choice, row in probabilities.items():
            options = self.choices.setdefault(choice, {})
            for option, value in row.items():
                options.setdefault(option, [math.nan] * num_before).append(value)
        for options in self.choices.values():
            for values in options.values():
                values.extend([math.nan] * (len(self.epochs) - len(values)))

    @property
    def options(self) -> list[str]:
        """All options, in the order of their first appearance."""
        return list(dict.fromkeys(o for options in self.choices.values() for o in options))

    def thinned(self, max_moments: int) -> "History":
        """The same with at most so many moments, evenly taken; the last one is kept."""
        count = len(self.epochs)
        if count <= max_moments:
            return self
        steps = max(1, max_moments - 1)
        kept = [count - 1 - round(i * (count - 1) / steps) for i in reversed(range(max_moments))]
        return History(
            [self.epochs[i] for i in kept],
            {
                choice: {option: [values[i] for i in kept] for option, values in options.items()}
                for choice, options in self.choices.items()
            },
        )
