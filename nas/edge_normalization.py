"""Edge normalisation: a weight for each input of a node (PC-DARTS, arXiv:1907.05737, eq. 3).

    x_j = sum_i softmax_i(beta_ij) * f_ij(x_i)

with logits beta of their own, shared by all cells of a kind. They are rows of the supernet's table
of logits, below those of the choices: one a node, one option an input. No sampler draws them.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from nas.genotype import Edge

_MARK = "/inputs->"


class EdgeNormalization(nn.Module):
    """The weights of the inputs of one node; the supernet sets them before the forward pass.

    Attributes:
        name: Of the row of logits.
        options: The input nodes by number, as text.
    """

    def __init__(self, cell: str, target: int) -> None:
        """Args:
        cell: Name of the cell.
        target: Number of the node, which all nodes before it enter.
        """
        super().__init__()
        self.name = row_name(cell, target)
        self.options = tuple(map(str, range(target)))
        self._weights: tuple[Tensor, ...] | None = None

    def weigh(self, weights: Sequence[Tensor]) -> None:
        """Sets the weights, one scalar an input."""
        self._weights = tuple(weights)

    def release(self) -> None:
        """Lets go of the weights, which hold a graph."""
        self._weights = None

    def forward(self, source: int, out: Tensor) -> Tensor:
        """The output `out` of the edge from node `source` times its weight."""
        assert self._weights is not None, "the supernet has set no weights"
        return self._weights[source] * out

    def extra_repr(self) -> str:
        return f"{self.name!r}, options={self.options}"


def row_name(cell: str, target: int) -> str:
    """Name of the row of logits of the inputs of node `target`, such as `normal/inputs->4`."""
    return f"{cell}{_MARK}{target}"


def edge_scores(scores: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Scores `[K]` by the name of the edge, each times the weight of its edge where it has one.

    With probabilities `p` of the operations and weights `w` these are the products `p * w` that
    PC-DARTS derives from (section 3.3). Over all inputs of a node and all operations they sum to 1.

    Args:
        scores: Not negative, `[K]` by edge, and the weights of the inputs by `row_name`.
    """
    weights = {name: row for name, row in scores.items() if _MARK in name}
    if not weights:
        return scores
    products = {}
    for name, row in scores.items():
        if name not in weights:
            edge = Edge.parse(name)
            products[name] = row * weights[row_name(edge.cell, edge.target)][edge.source]
    return products
