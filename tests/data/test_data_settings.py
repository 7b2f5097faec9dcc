"""Ranges of the settings of a data set, and Hydra's view of them."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from nas.data import DataInfo, DataSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"validation_fraction": 1.5}, "data.validation_fraction is 1.5: must lie between"),
        ({"test_fraction": 0.0}, "data.test_fraction is 0.0: must lie between"),
        ({"crop_padding": -1}, "data.crop_padding is -1: must not be negative"),
        ({"cutout": -2}, "data.cutout is -2"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"image_size": 0}, "data.image_size is 0: must be at least 1"),
        ({"limit": 0}, "data.limit is 0"),
        ({"mean": [0.5]}, "data.mean and data.std must be given together"),
        ({"mean": [125.3], "std": [0.2]}, r"data.mean is \[125.3\].*divide by 255"),
        ({"mean": [0.5], "std": [0.0]}, r"data.std is \[0.0\]"),
        ({"storage": "memry"}, "'memry' .data.storage.*did you mean 'memory'"),
    ],
)
def test_values_out_of_range_name_key_value_and_remedy(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSettings(**wrong)


def test_schema_goes_through_omegaconf() -> None:
    schema = OmegaConf.structured(DataSettings)
    config = OmegaConf.merge(schema, {"name": "svhn", "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]})
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, DataSettings)
    assert settings.mean == [0.5, 0.5, 0.5]


def test_info_counts_classes() -> None:
    info = DataInfo("x", ("a", "b", "c"), 1, 8, (0.5,), (0.5,), 10)
    assert info.num_classes == 3
