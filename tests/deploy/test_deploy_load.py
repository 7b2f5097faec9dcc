"""`nas.load`: networks come back as they were; what is wrong with a folder is told in a line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deploy_helpers import CLASSES, NETWORKS, build, describe, save_trained
from safetensors.torch import load_file, save_file
from torch import nn

import nas
from nas.deploy.description import Difference, ModelDescription
from nas.deploy.weights import read_weights, write_weights
from nas.errors import UserError
from nas.spaces import SPACES
from nas.training.checkpoint import last_checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def trusting(space: str) -> dict[str, Any]:
    return {"trust_recorded_model": True} if space == "custom" else {}


def test_every_space_is_tested() -> None:
    assert set(NETWORKS) == set(SPACES)


@pytest.mark.parametrize("space", NETWORKS)
def test_a_network_comes_back_as_it_was(tmp_path: Path, space: str) -> None:
    network = save_trained(tmp_path, space)
    torch.manual_seed(5)
    loaded = nas.load(tmp_path, **trusting(space))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1)), "the global generator is left alone"
    assert not any(module.training for module in loaded.modules())
    images = torch.randn(3, 3, 16, 16)
    logits = loaded(images)
    assert torch.equal(logits, network(images)) and logits.shape == (3, len(CLASSES))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_auxiliary_head_is_left_behind(tmp_path: Path) -> None:
    genotype, sizes = NETWORKS["darts"]
    network = save_trained(tmp_path, "darts", auxiliary=True)
    assert any(name.startswith("auxiliary.") for name in network.state_dict())
    loaded = nas.load(tmp_path)
    assert loaded.state_dict().keys() == build(genotype, sizes).state_dict().keys()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(images), network(images))


def test_sizes_are_kept_though_a_default_changes(tmp_path: Path) -> None:
    genotype, _ = NETWORKS["nasbench201"]
    description = describe(genotype, {"channels": None, "cells_per_stage": 1, "cells": None})
    assert description.sizes == {"channels": 16, "cells_per_stage": 1}
    mobilenet, _ = NETWORKS["mobilenet"]
    assert describe(mobilenet, {"channels": None, "cells": None}).sizes == mobilenet.sizes


def test_a_description_comes_back_as_it_was(tmp_path: Path) -> None:
    for space, (genotype, sizes) in NETWORKS.items():
        before = replace(describe(genotype, sizes), differences={"pt2": Difference(1e-7, 3.5)})
        (tmp_path / "model.json").write_text(before.to_json())
        assert ModelDescription.load(tmp_path / "model.json") == before, space
    assert Difference(1e-6, 2.0).relative == 5e-7 and Difference(0.0, 0.0).relative == 0


def test_code_is_imported_only_if_the_caller_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_trained(tmp_path, "custom")
    monkeypatch.delitem(sys.modules, "toy_models", raising=False)
    with pytest.raises(UserError, match=r"give model=toy_models\.SmallNet \(.*, or trust_"):
        nas.load(tmp_path)
    assert "toy_models" not in sys.modules
    expected = nas.load(tmp_path, trust_recorded_model=True)(torch.ones(1, 3, 16, 16))
    import toy_models

    for model in ("toy_models.SmallNet", toy_models.SmallNet):
        assert torch.equal(nas.load(tmp_path, model=model)(torch.ones(1, 3, 16, 16)), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere.Net", r"model: no module 'nowhere'"),
        ("toy_models.SmallNt", r"did you mean 'SmallNet'\?"),
        ("SmallNet", r"model is 'SmallNet': must be like my_package.MyNet"),
        ("toy_models.Shared", r"unknown argument of toy_models\.Shared 'depth'"),
    ],
)
def test_a_model_that_cannot_be_had_is_named(tmp_path: Path, model: str, message: str) -> None:
    save_trained(tmp_path, "custom")
    with pytest.raises(UserError, match=message):
        nas.load(tmp_path, model=model)


def test_a_model_is_named_for_a_model_of_ones_own_alone(tmp_path: Path) -> None:
    save_trained(tmp_path, "vit")
    with pytest.raises(UserError, match="is of the space vit, not of a model of your own"):
        nas.load(tmp_path, model="toy_models.SmallNet")


def change(folder: Path, **fields: object) -> None:
    path = folder / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields}))


def break_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    found = {**load_file(path), **tensors}
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "neither an export nor the folder of a finished"),
        (lambda f: (f / "model.json").write_text("{"), r"model\.json: not valid JSON"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), r"model\.json: not valid JSON"),
        (lambda f: (f / "model.json").write_text("[]"), "does not describe a network"),
        (lambda f: change(f, format_version=2), "format version 2 is not supported"),
        (lambda f: change(f, format_version=True), "format version True is not supported"),
        (lambda f: change(f, class_names="abc"), "a field is wrong .expected a list"),
        (lambda f: change(f, sizes={"channels": [1, "x"]}), "expected a number"),
        (lambda f: change(f, sizes={"chanels": 4}), "has no such size"),
        (lambda f: change(f, preprocessing={}), "lacks the field 'in_channels'"),
        (lambda f: change(f, space="vit"), "files of different networks"),
        (lambda f: (f / "genotype.json").unlink(), "cannot read the genotype file"),
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 99), "damaged or not a safetens"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-9]
            ),
            "damaged or not a safetens",
        ),
        (
            lambda f: break_weights(f, **{"classifier.bias": None}),
            r"lacks the weights 'classifier\.bias'",
        ),
        (lambda f: break_weights(f, other=torch.ones(1)), "has foreign weights 'other'"),
        (
            lambda f: break_weights(f, **{"classifier.bias": torch.ones(4)}),
            r"'classifier\.bias' is \[4\], the network needs \[3\]",
        ),
        (lambda f: change(f, class_names=["a", "b"]), "does not fit the network"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, spoil: Any, message: str) -> None:
    save_trained(tmp_path, "nasbench201")
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        nas.load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_folders_of_something_else_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        nas.load(tmp_path / "nowhere")
    (tmp_path / "summary.json").write_text('{"kind": "search"}')
    with pytest.raises(UserError, match=r"of a search.* python retrain\.py genotype="):
        nas.load(tmp_path)
    (tmp_path / "summary.json").unlink()
    for kind, message in (("search", "of a search"), ("retrain", r"run_dir=.* resume=true")):
        save_checkpoint(last_checkpoint(tmp_path), kind, {"epoch": 1})
        with pytest.raises(UserError, match=message):
            nas.load(tmp_path)


def test_weights_that_two_modules_share_are_written_for_both(tmp_path: Path) -> None:
    layer = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)
    write_weights(nn.Sequential(layer, nn.ReLU(), layer), tmp_path / "shared.safetensors")
    found = read_weights(tmp_path / "shared.safetensors")
    assert found.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(found["0.weight"], layer.weight) and found["2.weight"].is_contiguous()
    assert (tmp_path / "shared.safetensors").stat().st_mode & 0o077, "others may read it"


def test_importing_the_package_does_not_wait_for_torchvision() -> None:
    check = "import nas, sys; assert 'torchvision' not in sys.modules; nas.Predictor"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(nas.__file__).parents[1])
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        nas.lod  # type: ignore[attr-defined]  # noqa: B018
    assert set(nas.__all__) <= set(dir(nas)) | {"load", "Predictor"}
