"""Published cells: their texts, parameters and multiply-adds are the authors' to the last digit.

The figures without a table beside them were counted on the authors' own modules: quark0/darts at
f276dd3 (`cnn/model.py`), and D-X-Y/AutoDL-Projects at f46486e (GDAS_V1 on ImageNet) and at c72e66b,
`others/GDAS` (GDAS_F1); multiply-adds of convolutions and linear layers, no biases.
"""

import pytest
import torch

from nas.genotype.published import PUBLISHED
from nas.genotype.text import genotype_text, parse_darts, parse_nasbench201
from nas.network import build_network, network_cost

# C=36, 20 cells, 10 classes, 32x32: parameters, with auxiliary head, multiply-adds.
CIFAR = {
    "darts_v1": (3_169_414, 3_645_840, 500_987_520),
    "darts_v2": (3_349_342, 3_825_768, 528_359_040),  # DARTS (paper): 3.3 M
    "gdas_v1": (3_368_782, 3_845_208, 519_428_736),  # GDAS (paper): 3.4 M
    "pc_darts": (3_634_678, 4_111_104, 556_670_592),  # PC-DARTS (paper): 3.6 M
    "p_darts": (3_433_798, 3_910_224, 532_174_464),  # P-DARTS (paper): 3.4 M
    "drnas": (4_099_294, 4_575_720, 635_135_616),  # DrNAS (paper): 4.0 M
    "gdas_frc_f1": (2_543_014, 3_019_440, 402_781_824),  # GDAS (FRC) (paper): 2.5 M
}

# 14 cells, 1000 classes, 224x224: C, parameters, with auxiliary head, multiply-adds.
IMAGENET = {
    "darts_v1": (48, 4_510_432, 5_771_208, 505_864_704),
    "darts_v2": (48, 4_718_752, 5_979_528, 529_911_552),  # DARTS (paper): 4.7 M, 574 M
    "gdas_v1": (50, 5_345_075, None, 581_009_000),  # GDAS (paper): 5.3 M, 581 M
    "p_darts": (48, 4_944_352, 6_205_128, 542_819_328),  # P-DARTS (paper): 4.9 M, 557 M
    "gdas_frc_f1": (52, 4_430_386, None, 496_733_952),  # GDAS (FRC) (paper): 4.4 M, 497 M
}


@pytest.mark.parametrize("name", CIFAR)
def test_cost_on_cifar_is_that_of_the_authors(name: str) -> None:
    parameters, with_auxiliary, multiply_adds = CIFAR[name]
    sizes = {"channels": 36, "cells": 20}
    genotype = PUBLISHED[name]
    with torch.device("meta"):
        network = build_network(genotype, sizes, in_channels=3, num_classes=10, auxiliary=True)
        plain = build_network(genotype, sizes, in_channels=3, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == with_auxiliary
    cost = network_cost(network, 3, 32)
    assert (cost.num_parameters, cost.multiply_adds) == (parameters, multiply_adds)
    assert sum(p.numel() for p in plain.parameters()) == parameters


@pytest.mark.parametrize("name", IMAGENET)
def test_cost_on_imagenet_is_that_of_the_authors(name: str) -> None:
    channels, parameters, with_auxiliary, multiply_adds = IMAGENET[name]
    sizes = {"channels": channels, "cells": 14, "stem": "imagenet"}
    with torch.device("meta"):
        network = build_network(
            PUBLISHED[name], sizes, in_channels=3, num_classes=1000, auxiliary=True
        )
    cost = network_cost(network, 3, 224)
    assert (cost.num_parameters, cost.multiply_adds) == (parameters, multiply_adds)
    # GDAS gives its head one batch norm more than DARTS, whose head this is.
    if with_auxiliary is not None:
        assert sum(p.numel() for p in network.parameters()) == with_auxiliary


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_read_back_from_their_text(name: str) -> None:
    genotype = PUBLISHED[name]
    parse = parse_nasbench201 if genotype.space == "nasbench201" else parse_darts
    assert parse(genotype_text(genotype)) == genotype


def test_every_published_darts_cell_has_its_cost_checked() -> None:
    assert set(CIFAR) == {name for name in PUBLISHED if not name.startswith("nasbench201")}
