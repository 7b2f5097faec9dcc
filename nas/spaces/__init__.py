"""What can be searched: one module a space, all with the interface `SearchSpace`."""

from nas.spaces.custom import Custom
from nas.spaces.darts import DARTS, GDASFixedReduction
from nas.spaces.mobilenet import MobileNet
from nas.spaces.model import ModelSpace
from nas.spaces.nasbench201 import NASBench201
from nas.spaces.space import SPACES, SearchSpace
from nas.spaces.vit import ViT

__all__ = [
    "DARTS",
    "SPACES",
    "Custom",
    "GDASFixedReduction",
    "MobileNet",
    "ModelSpace",
    "NASBench201",
    "SearchSpace",
    "ViT",
]
