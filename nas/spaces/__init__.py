"""What can be searched: one module a space, all with the interface `SearchSpace`."""

from nas.spaces.darts import DARTS, GDASFixedReduction
from nas.spaces.nasbench201 import NASBench201
from nas.spaces.space import SPACES, SearchSpace

__all__ = ["DARTS", "SPACES", "GDASFixedReduction", "NASBench201", "SearchSpace"]
