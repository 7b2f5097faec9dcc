"""Checks of genotypes in the DARTS spaces."""

from collections.abc import Sequence

from nas.errors import UserError
from nas.genotype import Genotype
from nas.ops import OPERATIONS
from nas.spaces.space import check_operations, parse_edges

_INPUTS = 2


def check(genotype: Genotype, cells: Sequence[str]) -> int:
    """Checks that `genotype` has exactly `cells`, two inputs a node; returns the nodes of a cell.

    Raises:
        UserError: it does not fit.
    """
    check_operations(genotype, OPERATIONS)
    edges = parse_edges(genotype)
    found = sorted({edge.cell for edge in edges})
    if found != sorted(cells):
        raise UserError(
            f"genotype: the space {genotype.space} has the cells {', '.join(sorted(cells))}, "
            f"this genotype has {', '.join(found) or 'none'}"
        )
    last = max(edge.target for edge in edges)
    for cell in cells:
        for node in range(_INPUTS, last + 1):
            sources = [e.source for e in edges if e.cell == cell and e.target == node]
            if len(sources) != _INPUTS or any(source >= node for source in sources):
                raise UserError(
                    f"genotype: node {node} of the {cell} cell must keep {_INPUTS} inputs from "
                    f"the nodes before it, it has {sources}"
                )
        foreign = [e.name for e in edges if e.cell == cell and e.target < _INPUTS]
        if foreign:
            raise UserError(f"genotype: edge {foreign[0]} ends in an input of the cell")
    return last - _INPUTS + 1
