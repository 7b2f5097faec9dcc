"""Partial channels: a choice that works on some of the channels (PC-DARTS, arXiv:1907.05737).

Of the paper's two parts this is the first; the other is `nas.edge_normalization`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas.choice import NOT_CONNECTED, Choice
from nas.errors import UserError
from nas.kernels.pending import value_of


class PartialChoice(Choice):
    """A choice on the first 1/k of the channels; the others pass it by (section 3.2).

    Input `[B, C, H, W]`, output `[B, C, H / stride, W / stride]`, rounded up. The first C/k
    channels go through the candidates; the others are copied, or max-pooled (2x2) where the stride
    is 2. The channels of the k groups are then interleaved, so that the next edge searches others.

    Under `none` the first channels are 0 and the others still pass, as in a mixture where `none`
    has all of the weight: the edge connects. Only `NOT_CONNECTED` (an edge that a genotype dropped)
    takes it out of the cell.
    """

    def __init__(
        self, candidates: Mapping[str, nn.Module], name: str, *, parts: int, stride: int
    ) -> None:
        """Args:
        candidates: Modules for C/k channels, by option.
        name: Of the choice.
        parts: The paper's K: one part of so many goes through the candidates.
        stride: 1 or 2.
        """
        super().__init__(candidates, name)
        self._parts = parts
        # ceil_mode: odd sizes round up like the candidates beside it.
        self.bypass = nn.Identity() if stride == 1 else nn.MaxPool2d(2, 2, ceil_mode=True)

    @property
    def connects(self) -> bool:
        """Whether the edge is there: what passes by differs from zero whatever the option."""
        return self._weights is not None or self._index != NOT_CONNECTED

    @property
    def silent_gate(self) -> Tensor | None:
        """None: the edge runs under `none`, too, and the gate hangs on its zeros."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        num_searched = x.shape[1] // self._parts
        passing: Tensor = self.bypass(x[:, num_searched:])
        if super().connects or super().silent_gate is not None:
            searched = value_of(super().forward(x[:, :num_searched]))
        else:
            searched = torch.zeros_like(passing[:, :num_searched])
        return nn.functional.channel_shuffle(torch.cat([searched, passing], dim=1), self._parts)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, parts={self._parts}"


def check_partial_channels(parts: int, channels: int) -> None:
    """Checks that `parts` divides `channels`, those of the first cells.

    Raises:
        UserError: it does not.
    """
    if parts < 1 or channels % parts:
        raise UserError(
            f"space.partial_channels is {parts}: must divide space.channels={channels} without rest"
        )
