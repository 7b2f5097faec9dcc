"""Published cells by name, as their authors print them.

Sources: DARTS_V1 and DARTS_V2: quark0/darts, cnn/genotypes.py. GDAS_V1: D-X-Y/AutoDL-Projects,
xautodl/nas_infer_model/DXYs/genotypes.py; GDAS_F1, which has the parameters of the paper's
"GDAS (FRC)": others/GDAS in the first release of the same. PC_DARTS_cifar: yuhuixu1993/PC-DARTS,
genotypes.py. P-DARTS: chenxin061/pdarts, genotypes.py. DrNAS_cifar10: xiangning-chen/DrNAS,
DARTS-space/genotypes.py. Of NAS-Bench-201: the best cell on CIFAR-10 by its table, the ResNet-like
cell, and 3x3 convolutions on every edge.
"""

from nas.genotype import Genotype
from nas.genotype.text import parse_darts, parse_nasbench201

ABOUT = {
    "darts_v1": "DARTS, first order: of the space darts",
    "darts_v2": "DARTS, second order: of the space darts",
    "drnas": "DrNAS on CIFAR-10: of the space darts",
    "gdas_frc_f1": "GDAS with the fixed reduction cell: of the space gdas_frc",
    "gdas_v1": "GDAS: of the space darts",
    "nasbench201_best": "the best on CIFAR-10 by the table of NAS-Bench-201",
    "nasbench201_conv3x3": "3x3 convolutions on every edge: of the space nasbench201",
    "nasbench201_resnet": "the ResNet-like cell: of the space nasbench201",
    "p_darts": "P-DARTS: of the space darts",
    "pc_darts": "PC-DARTS on CIFAR-10: of the space darts",
}
"""What each is; `--list genotypes` reads it from this text."""

_DARTS_TEXTS = {
    "darts_v1": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('skip_connect', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
        "reduce_concat=range(2, 6))"
    ),
    "darts_v2": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
        "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=range(2, 6))"
    ),
    "gdas_v1": (
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), "
        "('sep_conv_5x5', 2), ('sep_conv_3x3', 3), ('skip_connect', 0), ('sep_conv_5x5', 4), "
        "('sep_conv_3x3', 3)], normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_5x5', 2), ('sep_conv_5x5', 1), ('dil_conv_5x5', 2), "
        "('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_5x5', 1)], "
        "reduce_concat=range(2, 6))"
    ),
    "pc_darts": (
        "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), "
        "('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), "
        "('dil_conv_3x3', 1)], normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), "
        "('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
        "reduce_concat=range(2, 6))"
    ),
    "drnas": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 2), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2), "
        "('dil_conv_5x5', 3)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        "('sep_conv_5x5', 1), ('dil_conv_5x5', 2), ('sep_conv_5x5', 1), ('sep_conv_5x5', 1), "
        "('dil_conv_5x5', 3), ('skip_connect', 4), ('sep_conv_5x5', 1)], "
        "reduce_concat=range(2, 6))"
    ),
    "p_darts": (
        "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), "
        "('dil_conv_5x5', 4)], normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), "
        "('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2), ('max_pool_3x3', 0), "
        "('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], "
        "reduce_concat=range(2, 6))"
    ),
    "gdas_frc_f1": (
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), "
        "('sep_conv_3x3', 2), ('skip_connect', 0), ('sep_conv_3x3', 2), ('skip_connect', 0), "
        "('sep_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[], reduce_concat=range(2, "
        "2))"
    ),
}

_NB201_TEXTS = {
    "nasbench201_best": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
        "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    ),
    "nasbench201_resnet": (
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    ),
    "nasbench201_conv3x3": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
        "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    ),
}

PUBLISHED: dict[str, Genotype] = {
    **{name: parse_darts(text) for name, text in _DARTS_TEXTS.items()},
    **{name: parse_nasbench201(text) for name, text in _NB201_TEXTS.items()},
}
