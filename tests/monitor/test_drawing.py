"""Drawings: every label is there, inside the picture, and clear of all others and all lines."""

import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from drawing_helpers import assert_legible, extents
from matplotlib.image import imread
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as MplPath
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nas.errors import UserError
from nas.genotype import Confidence, Genotype
from nas.monitor.drawing import draw_cell, draw_list, save_genotype_picture
from nas.monitor.heatmap import draw_probabilities
from nas.monitor.operations import FAMILIES, operation_family, short_label

NASBENCH = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
DARTS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_5x5", "dil_conv_3x3")


def with_confidence(genotype: Genotype, seed: int) -> Genotype:
    generator = random.Random(seed)
    confidence = {
        name: Confidence(generator.choice([0.2, 0.5, 1.0]), 0.1, 0.5) for name in genotype.choices
    }
    return Genotype(genotype.space, genotype.operations, genotype.choices, confidence)


def dense_cell(num_nodes: int, seed: int) -> Genotype:
    generator = random.Random(seed)
    choices = {
        f"cell/{source}->{target}": generator.choice(NASBENCH)
        for target in range(1, num_nodes)
        for source in range(target)
    }
    return Genotype("nasbench201", NASBENCH, choices)


def darts_cell(num_inner: int, seed: int) -> Genotype:
    generator = random.Random(seed)
    choices = {
        f"normal/{source}->{target}": generator.choice(DARTS)
        for target in range(2, 2 + num_inner)
        for source in generator.sample(range(target), 2)
    }
    return Genotype("darts", DARTS, choices)


RANDOM_CELLS = [
    *(dense_cell(num_nodes, seed) for num_nodes in range(2, 9) for seed in range(2)),
    *(darts_cell(num_inner, seed) for num_inner in range(1, 7) for seed in range(3)),
]


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("genotype", RANDOM_CELLS)
def test_labels_neither_overlap_nor_are_cut(genotype: Genotype, seed: int | None) -> None:
    if seed is not None:
        genotype = with_confidence(genotype, seed)
    (cell,) = genotype.cells()
    boxes = assert_legible(draw_cell(genotype, cell))
    assert {f"label-{name}" for name in genotype.choices} <= set(boxes)


def meets(patch: FancyArrowPatch, box: Bbox) -> bool:
    """Whether any stroke of an arrow touches the box; jumps between strokes do not count."""
    path = patch.get_path().transformed(patch.get_transform()).cleaned(curves=False)
    ends = zip(path.vertices[:-1], path.vertices[1:], path.codes[1:], strict=True)
    strokes = (MplPath([start, end]) for start, end, code in ends if code == MplPath.LINETO)
    return any(stroke.intersects_bbox(box) for stroke in strokes)


@pytest.mark.parametrize("genotype", RANDOM_CELLS)
def test_no_line_crosses_the_label_of_another(genotype: Genotype) -> None:
    (cell,) = genotype.cells()
    figure = draw_cell(with_confidence(genotype, 1), cell)
    boxes = {k: box for k, box in extents(figure).items() if k.startswith("label-")}
    crossed = [
        sum(meets(patch, box) for box in boxes.values())
        for patch in figure.axes[0].patches
        if isinstance(patch, FancyArrowPatch)
    ]
    # Each edge meets its own label; the lines of the output's bus meet none.
    assert sorted(crossed, reverse=True)[: len(boxes)] == [1] * len(boxes)
    assert sum(crossed) == len(boxes)


def test_long_names_of_operations_fit() -> None:
    choices = {"cell/0->1": "inverted_bottleneck_k5_e6_squeeze_excite", "cell/0->2": "none"}
    genotype = Genotype("x", (), {**choices, "cell/1->2": "a_very_very_long_operation_name"})
    assert_legible(draw_cell(genotype, "cell"))


def test_long_name_of_a_space_fits() -> None:
    genotype = Genotype("a_space_with_quite_a_long_name_for_a_cell", (), {"cell/0->1": "none"})
    assert_legible(draw_cell(genotype, "cell"))


def test_cell_of_two_inputs_gets_an_output_and_one_of_one_input_does_not() -> None:
    assert "node-output" in extents(draw_cell(darts_cell(4, 0), "normal"))
    assert "node-output" not in extents(draw_cell(dense_cell(4, 0), "cell"))


def test_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="reduce"):
        draw_cell(dense_cell(4, 0), "reduce")


@pytest.mark.parametrize("dark", [False, True])
def test_png_has_many_colours_and_no_leftovers(tmp_path: Path, dark: bool) -> None:
    genotype = with_confidence(darts_cell(4, 0), 0)
    save_genotype_picture(genotype, tmp_path / "cell.png", dark=dark)
    pixels = imread(tmp_path / "cell.png")
    codes = (pixels * 255).round().astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
    assert len(np.unique(codes)) > 100
    assert (pixels[0, 0, :3].mean() < 0.5) == dark
    assert [path.name for path in tmp_path.iterdir()] == ["cell.png"]


def test_svg_holds_both_cells(tmp_path: Path) -> None:
    choices = dict(darts_cell(4, 0).choices)
    choices |= {name.replace("normal", "reduce"): option for name, option in choices.items()}
    save_genotype_picture(Genotype("darts", DARTS, choices), tmp_path / "cell.svg")
    ids = {e.get("id") for e in ElementTree.parse(tmp_path / "cell.svg").iter()}
    assert {f"label-{name}" for name in choices} <= ids


def test_genotype_without_cells_is_drawn_as_a_list(tmp_path: Path) -> None:
    genotype = Genotype("macro", (), {"stage0.block0": "mbconv_k3_e6", "stage1.block0": "skip"})
    assert len(assert_legible(draw_list(genotype))) == 3
    known = {name: Confidence(0.5, 0.0, 1.0) for name in genotype.choices}
    texts = [
        text.get_text() for text in draw_list(replace(genotype, confidence=known)).findobj(Text)
    ]
    assert "stage0.block0   mbconv_k3_e6 · 50%" in texts and "stage1.block0   skip · 50%" in texts
    save_genotype_picture(genotype, tmp_path / "list.png")
    assert (tmp_path / "list.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["cell.gif", "cell", "folder.png"])
def test_picture_that_cannot_be_written_is_a_users_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        save_genotype_picture(dense_cell(3, 0), tmp_path / name)


@pytest.mark.parametrize(("num_choices", "options"), [(6, NASBENCH), (28, (*DARTS, "x", "y", "z"))])
def test_heat_map_prints_every_value_legibly(num_choices: int, options: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_choices, len(options), generator=generator)
    names = [f"normal/{index}->13" for index in range(num_choices)]
    boxes = assert_legible(draw_probabilities(names, options, torch.softmax(3 * logits, -1)))
    assert len(boxes) == num_choices * len(options) + num_choices + len(options) + 1


def test_heat_map_leaves_options_empty_that_a_choice_lacks() -> None:
    table = torch.tensor([[0.5, 0.5, torch.nan], [0.2, 0.2, 0.6]])
    boxes = assert_legible(draw_probabilities(["a", "b"], ["x", "y", "z"], table))
    assert len(boxes) == 5 + 2 + 3 + 1


def test_heat_map_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        draw_probabilities(["a"], ["x", "y", "z"], torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("none", "none"),
        ("skip_connect", "skip"),
        ("nor_conv_3x3", "conv"),
        ("conv_7x1_1x7", "conv"),
        ("sep_conv_5x5", "separable"),
        ("dil_conv_3x3", "dilated"),
        ("dil_sep_conv_3x3", "dilated"),
        ("max_pool_3x3", "pool"),
        ("mbconv_k3_e6", "separable"),
        ("attention", "other"),
    ],
)
def test_family_of_an_operation(name: str, family: str) -> None:
    assert operation_family(name) == family
    assert family in FAMILIES


def test_labels_are_short() -> None:
    assert short_label("nor_conv_3x3") == "conv 3x3"
    assert short_label("skip_connect") == "skip"
    assert short_label("max_pool_3x3") == "max pool\n3x3"
    assert short_label("oneverylongword") == "oneverylongword"
