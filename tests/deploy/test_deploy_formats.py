"""Exported programs: those of every space give the network's logits; what does not is refused."""

import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deploy_helpers import IMAGES, NETWORKS, build
from torch import Tensor, nn

from nas.deploy import formats
from nas.deploy.description import Difference
from nas.errors import UserError

ONNX = pytest.mark.skipif(
    "onnx" not in formats.available_formats(),
    reason="onnx, onnxscript and onnxruntime are not installed",
)


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.mark.parametrize(
    ("space", "name"),
    [
        *((space, "pt2") for space in NETWORKS),
        *(pytest.param(space, "onnx", marks=ONNX) for space in NETWORKS if space != "gdas_frc"),
        pytest.param("gdas_frc", "onnx", marks=[ONNX, pytest.mark.slow]),
    ],
)
def test_networks_of_every_space_give_the_same_logits(
    tmp_path: Path, space: str, name: str
) -> None:
    network = build(*NETWORKS[space])
    path = tmp_path / formats.FORMATS[name].file
    formats.write(name, formats.trace(network, IMAGES), '{"some": "text"}', path)
    difference = formats.compare(name, path, network, IMAGES)
    assert difference.relative < 1e-5 and difference.largest_logit > 1e-3
    for batch in (1, 7):  # the trace had 2
        images = torch.randn(batch, 3, 16, 16)
        found = formats.FORMATS[name].run(path, images)
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)
    content = path.read_bytes()
    if name == "pt2":
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(entry) for entry in archive.namelist())
    assert b'{"some": "text"}' in content
    for place in (formats.__file__, torch.__file__):
        assert str(Path(place).parent).encode() not in content, "nobody need know our folders"


@ONNX
def test_onnx_states_its_inputs_and_outputs(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    formats.write("onnx", formats.trace(build(*NETWORKS["vit"]), IMAGES), "text", path)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    batch, *sizes = images.type.tensor_type.shape.dim
    assert batch.dim_param and [size.dim_value for size in sizes] == [3, 16, 16]
    assert {entry.key: entry.value for entry in model.metadata_props}["model.json"] == "text"


class Off(nn.Module):
    """Gives what the test wants to see."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) + self.by


def test_a_format_that_is_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    formats.write("pt2", formats.trace(Off(0.0), IMAGES), "", path)
    formats.check("pt2", formats.compare("pt2", path, Off(0.0), IMAGES), 1e-9)
    difference = formats.compare("pt2", path, Off(0.5), IMAGES)
    assert difference.largest == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(UserError, match=r"pt2: logits differ .* by up to 0\.5 .*tolerance=0\.1"):
        formats.check("pt2", difference, 0.1)
    formats.check("pt2", difference, 100)
    nothing = formats.compare("pt2", path, Off(float("nan")), IMAGES)
    with pytest.raises(UserError, match="nan"):
        formats.check("pt2", nothing, 100)
    formats.check("pt2", Difference(0.0, 0.0), 1e-4)
    with pytest.raises(UserError, match=r"by up to 0\.001"):
        formats.check("pt2", Difference(0.001, 0.0), 1e-4)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    formats.write("pt2", formats.trace(Off(0.0), IMAGES), "", path)
    with pytest.raises(UserError, match=r"gives \[1, 3\] for 1 images, the network \[1, 1\]"):
        formats.compare("pt2", path, nn.Sequential(Off(0.0), nn.Linear(3, 1)), IMAGES)


class Counts(nn.Module):
    """Depends on values, which no trace knows."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0] * 2 if images.mean().item() > 0 else images[:, :, 0, 0]


def test_a_network_that_cannot_be_traced_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"torch\.export cannot trace the network") as caught:
        formats.trace(Counts(), IMAGES)
    assert "\n" not in str(caught.value)


class OneSize(nn.Module):
    """Knows batches of two images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1)[:, :3]


def test_a_network_of_one_batch_size_is_refused() -> None:
    with pytest.raises(UserError, match="or on the number of images"):
        formats.trace(OneSize(), IMAGES)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert formats.available_formats() == ["pt2"]
    with pytest.raises(UserError, match=r"formats: onnx needs .* pip install '.*\[onnx\]'"):
        formats.FORMATS["onnx"].check()


def test_grey_images_are_traced_as_such(tmp_path: Path) -> None:
    grey = replace(IMAGES, in_channels=1, mean=(0.5,), std=(0.25,))
    formats.write("pt2", formats.trace(Off(0.0), grey), "", tmp_path / "model.pt2")
    assert formats.compare("pt2", tmp_path / "model.pt2", Off(0.0), grey).largest == 0
