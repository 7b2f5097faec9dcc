"""Signs that a differentiable search collapses, and what is done about it.

The well-known collapse (Zela et al., 2020, "Understanding and Robustifying Differentiable
Architecture Search", arXiv:1909.09656) is to cells of skip connections that generalise badly. It
shows in the genotype, and before that in the curvature of the validation loss over the logits.
"""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from nas.errors import unknown_name
from nas.genotype import Genotype
from nas.monitor.operations import operation_family

ACTIONS = ("warn", "stop", "roll_back")


@dataclass(kw_only=True, slots=True)
class CollapseSettings:
    """What counts as a collapse, and what is done then. Only epochs that train logits are judged.

    Attributes:
        action: `warn` says so once, `stop` ends the search after the epoch, `roll_back` also goes
            back to the logits of the last good epoch.
        max_skips: Skip connections that a cell of the genotype may have; None is any number. DARTS+
            (arXiv:1909.06035) allows one in the normal cell.
        eigenvalue_growth: Largest growth of the dominant eigenvalue: the mean of its last `window`
            values over the mean of the `window` values before; None is any. RobustDARTS: about 1.3.
        eigenvalue_every_epochs: How often the eigenvalue is computed; 0 is never.
        window: Values that are averaged. The last good epoch is that of the newest value before.
    """

    action: str = "warn"
    max_skips: int | None = None
    eigenvalue_growth: float | None = None
    eigenvalue_every_epochs: int = 0
    window: int = 5

    def check(self, key: str, *, learns: bool) -> None:
        """Raises a ValueError that names the dotted key under `key`, the value and the remedy.

        Args:
            key: Of these settings.
            learns: Whether the search trains logits.
        """
        if self.action not in ACTIONS:
            raise ValueError(str(unknown_name("action", self.action, ACTIONS, f"{key}.action")))
        limits = {"max_skips": 0, "eigenvalue_growth": 1, "eigenvalue_every_epochs": 0, "window": 1}
        for field, lowest in limits.items():
            value = getattr(self, field)
            if value is not None and not value >= lowest:
                raise ValueError(f"{key}.{field} is {value}: must be at least {lowest}")
        if self.eigenvalue_growth is not None and self.eigenvalue_every_epochs == 0:
            raise ValueError(
                f"{key}.eigenvalue_growth is {self.eigenvalue_growth}, but the eigenvalue is never "
                f"computed: set {key}.eigenvalue_every_epochs to 1 or more"
            )
        judges = self.max_skips is not None or self.eigenvalue_growth is not None
        if self.action != "warn" and not judges:
            raise ValueError(
                f"{key}.action is {self.action}, but nothing counts as a collapse: set "
                f"{key}.max_skips or {key}.eigenvalue_growth"
            )
        if (judges or self.eigenvalue_every_epochs) and not learns:
            raise ValueError(f"{key}: the sampler does not train the logits, leave it unset")


@dataclass(frozen=True)
class Collapse:
    """One sign of a collapse.

    Attributes:
        reason: What was found, and the limit.
        good_epoch: The last good epoch, from 0; None where no epoch before was judged.
        good_logits: The logits `[N, K]` at its end.
    """

    reason: str
    good_epoch: int | None
    good_logits: Tensor | None


class CollapseWatch:
    """Judges the epochs of a search, one after the other. Its state belongs in the checkpoint.

    Attributes:
        settings: What counts as a collapse.
        has_warned: Whether it has been spoken of.
    """

    def __init__(self, settings: CollapseSettings) -> None:
        self.settings = settings
        self.has_warned = False
        self._eigenvalues: list[tuple[int, float]] = []
        self._logits: dict[int, Tensor] = {}

    @property
    def growth(self) -> float | None:
        """Growth of the eigenvalue; None with less than two windows, or if it was not positive."""
        window = self.settings.window
        values = [value for _, value in self._eigenvalues[-2 * window :]]
        if len(values) < 2 * window:
            return None
        before, now = fmean(values[:window]), fmean(values[window:])
        return now / before if before > 0 else None

    def is_due(self, epoch: int) -> bool:
        """Whether the eigenvalue is wanted after `epoch`, from 0."""
        every = self.settings.eigenvalue_every_epochs
        return every > 0 and (epoch + 1) % every == 0

    def judge(
        self, epoch: int, genotype: Genotype, logits: Tensor, eigenvalue: float | None
    ) -> Collapse | None:
        """Takes note of one epoch; returns the sign of a collapse, if there is one.

        Args:
            epoch: Its number, from 0.
            genotype: What the logits give.
            logits: `[N, K]`, at its end.
            eigenvalue: The dominant eigenvalue, where it is due.
        """
        found = None
        if eigenvalue is not None:
            self._eigenvalues.append((epoch, eigenvalue))
            found = self._judge_growth()
        found = found or self._judge_skips(num_skips_in_a_cell(genotype))
        self._logits[epoch] = logits.detach().clone()
        self._forget(epoch)
        return found

    def _judge_growth(self) -> Collapse | None:
        growth, limit = self.growth, self.settings.eigenvalue_growth
        if growth is None or limit is None or growth <= limit:
            return None
        text = f"the dominant eigenvalue grew {growth:.2f}-fold, collapse.eigenvalue_growth is"
        return self._collapse(f"{text} {limit}", self._eigenvalues[-1 - self.settings.window][0])

    def _judge_skips(self, num_skips: int) -> Collapse | None:
        limit = self.settings.max_skips
        if limit is None or num_skips <= limit:
            return None
        text = f"{num_skips} skip connections in a cell, collapse.max_skips is {limit}"
        return self._collapse(text, max(self._logits, default=None))

    def _collapse(self, reason: str, good_epoch: int | None) -> Collapse:
        logits = None if good_epoch is None else self._logits[good_epoch]
        return Collapse(reason, good_epoch, logits)

    def _forget(self, epoch: int) -> None:
        """Keeps what a later epoch can go back to: the present one, and those of the window."""
        self._eigenvalues = self._eigenvalues[-2 * self.settings.window :]
        kept = {epoch, *(number for number, _ in self._eigenvalues[-self.settings.window :])}
        self._logits = {number: self._logits[number] for number in sorted(kept)}

    def state_dict(self) -> dict[str, Any]:
        """What was noted, for a checkpoint."""
        return {
            "eigenvalues": self._eigenvalues,
            "logits": self._logits,
            "has_warned": self.has_warned,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._eigenvalues, self._logits = list(state["eigenvalues"]), dict(state["logits"])
        self.has_warned = state["has_warned"]


def num_parameter_free(genotype: Genotype) -> int:
    """How many choices are a skip connection, a pooling or `none`, judged by their names."""
    families = (operation_family(option) for option in genotype.choices.values())
    return sum(family in ("skip", "pool", "none") for family in families)


def num_skips_in_a_cell(genotype: Genotype) -> int:
    """How many skip connections the cell with most of them has."""
    skips = Counter(
        name.rpartition("/")[0]
        for name, option in genotype.choices.items()
        if operation_family(option) == "skip"
    )
    return max(skips.values(), default=0)
