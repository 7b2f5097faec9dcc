"""The commands that programs tell a user to go on with."""

import sys
from pathlib import Path

import pytest

from nas.commands import command_for, retraining
from nas.nested import flat_texts

GENOTYPE = Path("runs/mine/genotype.json")


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("search.py", "python retrain.py"),
        ("/somewhere/bin/nas-search", "nas-retrain"),
        ("", "python retrain.py"),
    ],
)
def test_a_command_is_like_the_one_that_was_given(
    monkeypatch: pytest.MonkeyPatch, started: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert command_for("retrain") == expected


@pytest.mark.parametrize(
    ("data", "overrides", "expected"),
    [
        ({"name": "digits"}, ["epochs=3", "data.limit=9"], []),
        ({"name": "digits"}, ["data=digits", "data.test_fraction=0.3"], None),
        ({"name": "cifar10", "path": "data"}, ["data=cifar10"], None),
        ({"name": "cifar10", "path": "data"}, ["experiment=x", "seed=3"], ["data=cifar10"]),
        (
            {"name": "cifar10", "path": "my data"},
            ["experiment=x", "data.path=my data"],
            ["data=cifar10", "data.path=my data"],
        ),
        (
            {"name": "image_folder", "path": "photos"},
            ["experiment=mine"],
            ["data=image_folder", "data.path=photos"],
        ),
        ({"name": "stripes"}, ["data.name=stripes"], None),
    ],
)
def test_a_retraining_is_told_the_images_of_the_search(
    data: dict[str, str], overrides: list[str], expected: list[str] | None
) -> None:
    """Without a word `retrain.py` takes the digits; an experiment may have named others."""
    found = retraining(GENOTYPE, flat_texts({"data": data}), overrides)
    assert found == [f"genotype={GENOTYPE}", *(overrides if expected is None else expected)]


def test_a_retraining_is_told_the_model_of_the_search() -> None:
    space = {"name": "custom", "model": "my_net.MyNet", "arguments": {"depth": 4, "wide": True}}
    assert retraining(GENOTYPE, flat_texts({"space": space}), ()) == [
        f"genotype={GENOTYPE}",
        "network.model=my_net.MyNet",
        "network.arguments.depth=4",
        "network.arguments.wide=true",
    ]
