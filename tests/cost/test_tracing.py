"""Operations of a network: what is one, when two have one key, how they are called again."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.cost.tracing import Operation, TensorSpec, trace
from nas.genotype.published import PUBLISHED
from nas.network import build_network

CPU = torch.device("cpu")
META = torch.device("meta")


def keys(network: nn.Module, *shape: int, device: torch.device = CPU) -> list[str]:
    network = network.eval().to(device)
    return [operation.key for operation in trace(network, torch.rand(shape, device=device))]


class Pool(nn.Module):
    """A module without children whose printed form does not say what it does."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, self.size, stride=2)


class Mixed(nn.Module):
    """Layers with all kinds of code between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.scale = nn.Parameter(torch.ones(2, 1, 1))
        self.pool = Pool(2)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[-1]
        x = self.a(x) + self.b(x) * self.scale
        x = torch.cat([x, functional.relu(x)], dim=1)
        x[:, :1] = 0
        return self.pool(x).mT.reshape(len(x), -1) / height


CONV = "Conv2d(2, 2, kernel_size=(1, 1), stride=(1, 1)) on 3x2x4x4"


def test_layers_and_the_functions_between_them_in_their_order() -> None:
    assert keys(Mixed(), 3, 2, 4, 4) == [
        CONV,
        CONV,
        "mul on 3x2x4x4, 2x1x1",
        "add on 3x2x4x4, 3x2x4x4",
        "relu on 3x2x4x4, inplace=False",
        "cat on [3x2x4x4, 3x2x4x4], dim=1",
        "__setitem__ on 3x4x4x4, [slice(None, None, None), slice(None, 1, None)], 0",
        "avg_pool2d on 3x4x4x4, 2, stride=2",
        "mT on 3x4x2x2",
        "reshape on 3x4x2x2, 3, -1",
        "div on 3x16, 4",
    ]


def test_what_is_inside_a_layer_is_part_of_it() -> None:
    assert keys(nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(inplace=True)), 1, 2, 3, 3) == [
        "BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True) "
        "on 1x2x3x3",
        "ReLU(inplace=True) on 1x2x3x3",
    ]


def test_modules_of_ones_own_are_known_by_what_they_call() -> None:
    small, large = keys(Pool(2), 1, 1, 4, 4), keys(Pool(4), 1, 1, 4, 4)
    assert str(Pool(2)) == str(Pool(4)) and small != large


def test_a_layer_with_other_settings_or_another_input_has_another_key() -> None:
    layers = [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1)]
    found = {key for layer in layers for size in (4, 5) for key in keys(layer, 1, 4, size, size)}
    assert len(found) == 6
    assert keys(layers[0], 1, 4, 4, 4) == keys(nn.Conv2d(4, 4, 3), 1, 4, 4, 4)


def test_a_module_that_is_used_twice_is_two_operations() -> None:
    relu = nn.ReLU()
    assert len(keys(nn.Sequential(relu, relu), 1, 2, 3, 3)) == 2


@pytest.mark.parametrize("name", ["nasbench201_best", "darts_v2", "gdas_frc_f1"])
def test_keys_are_the_same_where_nothing_is_computed(name: str) -> None:
    sizes = {"channels": 4} | ({} if name.startswith("nas") else {"cells": 3})
    network = build_network(PUBLISHED[name], sizes, in_channels=3, num_classes=5)
    found = keys(network, 2, 3, 13, 13)
    assert len(found) > 40
    assert keys(network, 2, 3, 13, 13, device=META) == found


def test_tracing_leaves_nothing_behind() -> None:
    network, x = Mixed().eval(), torch.rand(1, 2, 4, 4)
    before = network(x)
    trace(network, x)
    assert torch.equal(network(x), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def test_a_network_that_fails_has_no_hooks_left_either() -> None:
    network = Failing()
    with pytest.raises(RuntimeError):
        trace(network, torch.rand(1, 2))
    assert not network.layer._forward_hooks and not network.layer._forward_pre_hooks


def test_an_operation_is_called_again_with_inputs_like_those_that_it_had() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 2, 4, 4).to(memory_format=torch.channels_last)
    for operation in trace(Mixed().eval(), images):
        specs = [spec for spec in operation.arguments if isinstance(spec, TensorSpec)]
        call = operation.prepared(CPU)
        tensors = [x for x in call.args if isinstance(x, Tensor)]
        assert [TensorSpec.of(x) for x in tensors] == specs
        out = call()
        assert out is None or isinstance(out, Tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(2, 3, 4, 5),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(2, 6)[:, ::2],
        torch.rand(3, 1).expand(3, 7),
        torch.tensor(3),
        torch.rand(0, 4),
        torch.arange(4) > 1,
        torch.rand(3, dtype=torch.bfloat16),
    ],
)
def test_a_spec_gives_a_tensor_of_the_same_layout(tensor: Tensor) -> None:
    spec = TensorSpec.of(tensor)
    made = spec.tensor(CPU)
    assert TensorSpec.of(made) == spec
    assert ((made >= 0) & (made <= 1)).all()


def test_a_detached_operation_keeps_a_layer_of_its_own() -> None:
    network = nn.Sequential(nn.Linear(3, 3)).eval()
    (operation,) = trace(network, torch.rand(1, 3))
    copied = operation.detached()
    assert isinstance(copied, Operation) and copied.key == operation.key
    assert operation.target is network[0] and copied.target is not network[0]
    assert isinstance(copied.target, nn.Linear)
    assert torch.equal(copied.target.weight, network[0].weight)
