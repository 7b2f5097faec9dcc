"""Data sets, their splits, and batches of them on the device."""

from nas.data.load import (
    RetrainData,
    SearchData,
    describe_images,
    load_retrain_data,
    load_search_data,
)
from nas.data.order import Cycle, Loader
from nas.data.settings import DataInfo, DataSettings

__all__ = [
    "Cycle",
    "DataInfo",
    "DataSettings",
    "Loader",
    "RetrainData",
    "SearchData",
    "describe_images",
    "load_retrain_data",
    "load_search_data",
]
