"""What a run says to do next."""

import pytest

from nas.training.results import retrain_data


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("digits", ["epochs=3", "data.limit=9"], []),
        ("digits", ["data=digits", "data.test_fraction=0.3"], None),
        ("cifar10", ["data=cifar10"], None),
        ("cifar10", ["experiment=gdas_nasbench201", "seed=3"], ["data=cifar10"]),
        ("cifar10", ["experiment=x", "data.path=my data"], ["data=cifar10", "'data.path=my data'"]),
        ("stripes", ["data.name=stripes"], None),
    ],
)
def test_a_retraining_is_told_the_images_of_the_search(
    name: str, overrides: list[str], expected: list[str] | None
) -> None:
    """Without a word `retrain.py` takes the digits; an experiment names others."""
    found = retrain_data({"data": {"name": name}}, overrides)
    assert found == (overrides if expected is None else expected)
