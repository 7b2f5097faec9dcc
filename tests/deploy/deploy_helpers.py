"""Tiny trained networks of every space, as the folders that they are loaded from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.data.preprocessing import Preprocessing
from nas.deploy.description import DESCRIPTION, GENOTYPE, WEIGHTS, ModelDescription
from nas.deploy.weights import write_weights
from nas.files import replace_text
from nas.genotype import Genotype
from nas.genotype.text import parse_darts, parse_nasbench201
from nas.network import build_network
from nas.training.description import network_sizes

CLASSES = ("ant", "bee", "cat")
IMAGES = Preprocessing(3, 16, "fit", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

_SEPARABLE = "[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('skip_connect', 0), ('avg_pool_3x3', 2)]"
_DILATED = "[('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_5x5', 0), ('skip_connect', 2)]"
_CONCAT = "range(2, 4)"
_CELLS = (
    f"Genotype(normal={_SEPARABLE}, normal_concat={_CONCAT}, reduce=%s, reduce_concat={_CONCAT})"
)
_LAYERS = {"channels": (8, 16), "layers": (2, 1), "strides": (2, 1), "stem_channels": 8}
_MOBILENET = {**_LAYERS, "head_channels": 16, "stem_stride": 1}
_VIT = {
    **{"patch_size": 4, "head_dim": 4, "embeddings": (8, 12), "depths": (1, 2)},
    **{"heads": (1, 2), "mlp_ratios": (2, 3)},
}

NETWORKS: dict[str, tuple[Genotype, dict[str, Any]]] = {
    "nasbench201": (
        parse_nasbench201(
            "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
        ),
        {"channels": 4, "cells_per_stage": 1},
    ),
    "darts": (parse_darts(_CELLS % _DILATED), {"channels": 4, "cells": 3}),
    "gdas_frc": (parse_darts(_CELLS % "[]"), {"channels": 4, "cells": 3}),
    "mobilenet": (
        Genotype(
            "mobilenet",
            (),
            {
                "stage1/layer1": "k3_e3",
                "stage1/layer2": "skip",
                "stage2/layer1": "k5_e6",
            },
            sizes=_MOBILENET,
        ),
        {},
    ),
    "vit": (
        Genotype(
            "vit",
            (),
            {
                "embedding": "12",
                "depth": "2",
                **{"layer1/heads": "1", "layer1/mlp_ratio": "3"},
                **{"layer2/heads": "2", "layer2/mlp_ratio": "2"},
            },
            sizes=_VIT,
        ),
        {},
    ),
    "custom": (
        Genotype(
            "custom",
            (),
            {
                **{"width": "8", "kernel": "3", "act": "ReLU", "depth": "2"},
                **{"take": "blocks", "ratio": "2"},
            },
        ),
        {"model": "toy_models.SmallNet", "arguments": {"depth": 3}},
    ),
}


def build(
    genotype: Genotype, sizes: Mapping[str, Any], *, auxiliary: bool = False, seed: int = 0
) -> nn.Module:
    """The network with weights and running statistics that no other seed gives, in evaluation."""
    torch.manual_seed(seed)
    channels, classes = IMAGES.in_channels, len(CLASSES)
    network = build_network(
        genotype, sizes, in_channels=channels, num_classes=classes, auxiliary=auxiliary
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def describe(genotype: Genotype, sizes: Mapping[str, Any]) -> ModelDescription:
    own = {name: sizes[name] for name in ("model", "arguments") if name in sizes}
    return ModelDescription(
        space=genotype.space,
        sizes=network_sizes(genotype, sizes),
        class_names=CLASSES,
        preprocessing=IMAGES,
        data={"name": "insects", "num_train": 40, "num_test": 20, "crop_padding": 2, "flip": True},
        recipe={"epochs": 3, "weights": {"name": "sgd", "nesterov": False}, "seed": 1},
        accuracy={"test_top1": 91.25, "test_top5": 100.0, "weights": "moving average"},
        cost={
            **{"num_parameters": 1234, "multiply_adds": 56789, "training_seconds": 4321.0},
            **{"search_seconds": 99.0, "device": "an abacus"},
        },
        release="0.1.0",
        **own,
    )


def save_trained(folder: Path, space: str, **build_arguments: Any) -> nn.Module:
    """Writes the folder of a trained network and returns the network."""
    genotype, sizes = NETWORKS[space]
    network = build(genotype, sizes, **build_arguments)
    replace_text(folder / GENOTYPE, genotype.to_json())
    replace_text(folder / DESCRIPTION, describe(genotype, sizes).to_json())
    write_weights(network, folder / WEIGHTS)
    return network
