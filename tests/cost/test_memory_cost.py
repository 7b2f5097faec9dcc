"""Peak memory of activations: networks small enough to add up by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.cost.memory_cost import _LiveTensors, activation_memory
from nas.genotype.published import PUBLISHED
from nas.network import build_network

FLOAT = 4
"""Bytes of a float32."""


def peak_on_cpu(network: nn.Module, images: Tensor) -> int:
    """The same count on real tensors."""
    live = _LiveTensors((*network.parameters(), *network.buffers()))
    live.add(images)
    with torch.no_grad(), live:
        network.eval()(images)
    return live.peak


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1)
    )


def test_a_chain() -> None:
    """Images stay: the caller holds them. Next to them an input and an output, largest at ReLU."""
    images, features = 3 * 6 * 6, 8 * 6 * 6
    assert activation_memory(chain(), 3, 6) == FLOAT * (images + 2 * features)


def test_an_operation_in_place_needs_no_second_tensor() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
    assert activation_memory(network, 3, 6) == FLOAT * (3 + 8) * 6 * 6


def test_a_pool_also_puts_out_its_indices_of_eight_bytes() -> None:
    pooled = 4 * 3 * 3
    expected = FLOAT * 4 * 6 * 6 + FLOAT * pooled + 8 * pooled
    assert activation_memory(nn.MaxPool2d(2), 4, 6) == expected


class Residual(nn.Module):
    """`x` is alive until the sum is made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.a, self.b = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.b(self.a(x))
        return x + y


def test_a_residual_connection() -> None:
    """Images, x (4 channels), a (16), b (4): 24 more than the sum's 3 times 4."""
    assert activation_memory(Residual(), 1, 5) == FLOAT * (1 + 4 + 16 + 4) * 5 * 5


class Branches(nn.Module):
    """Three branches of one input, concatenated; what a branch has inside is gone by then."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2, width, 1), nn.Conv2d(width, 3, 1)) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


@pytest.mark.parametrize(
    ("widths", "channels"),
    [
        ((4, 4, 4), 2 + 3 * 3 + 9),  # the concatenation with its inputs
        ((4, 4, 50), 2 + 2 * 3 + 50 + 3),  # inside the last branch, after two others
        ((50, 4, 4), 2 + 50 + 3),  # inside the first, before there are others
    ],
)
def test_branches(widths: tuple[int, ...], channels: int) -> None:
    assert activation_memory(Branches(widths), 2, 7) == FLOAT * channels * 7 * 7


class Views(nn.Module):
    """Views of one tensor, which keep all of it alive."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        part = y[:, :1]
        del y
        return functional.relu(part.flatten(1).view(len(part), -1)) + part.flatten(1)


def test_memory_that_tensors_share_counts_once() -> None:
    images = features = 8 * 4 * 4
    # A part is not contiguous in a batch of 2: `flatten` copies it, twice.
    part = 1 * 4 * 4
    assert activation_memory(Views(), 8, 4) == FLOAT * (images + features + 2 * part)
    assert activation_memory(Views(), 8, 4, batch_size=2) > 2 * FLOAT * (images + features)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_it_grows_with_the_batch(batch_size: int) -> None:
    one = activation_memory(chain(), 3, 6)
    assert activation_memory(chain(), 3, 6, batch_size) == batch_size * one


def test_parameters_and_buffers_do_not_count() -> None:
    large = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 1000), nn.Linear(1000, 2))
    assert activation_memory(large, 3, 4) == FLOAT * (3 * 4 * 4 + 1000 + 2)
    assert activation_memory(nn.BatchNorm2d(3), 3, 4) == FLOAT * 2 * (3 * 4 * 4)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT.contiguous()[:, None]  # [B, one head, pixels, channels]
        return functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_attention_is_that_of_the_fused_kernel_and_has_no_matrix() -> None:
    assert activation_memory(Attention(), 8, 16) < FLOAT * (16 * 16) ** 2


@pytest.mark.parametrize("name", ["nasbench201_best", "darts_v2", "gdas_frc_f1"])
def test_it_is_that_of_a_real_pass_and_leaves_the_network_as_it_was(name: str) -> None:
    sizes = {"channels": 4} | ({} if name.startswith("nas") else {"cells": 4})
    network = build_network(PUBLISHED[name], sizes, in_channels=3, num_classes=5).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = activation_memory(network, 3, 13, batch_size=2)
    assert network.training and not any(p.is_meta for p in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert found == peak_on_cpu(network, torch.rand(2, 3, 13, 13))


def test_profiler_agrees() -> None:
    """PyTorch's own events of the allocator, where kernels take nothing for themselves."""
    from benchmarks.measure import MIB, peak_mib

    network, images = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Tanh()), torch.rand(4, 8, 32, 32)

    def step() -> None:
        with torch.no_grad():
            network(images)

    network(images)
    allocated = peak_mib(step, torch.device("cpu")) * MIB
    held_by_the_caller = FLOAT * images.numel()
    assert activation_memory(network, 8, 32, batch_size=4) == held_by_the_caller + allocated
