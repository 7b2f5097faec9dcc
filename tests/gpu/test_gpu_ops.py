"""Operations on the GPU against the CPU, forward and backward, one at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nas.ops import OPERATIONS, Norm, build_operation
from nas.spaces.darts_parts import AuxiliaryHead
from nas.spaces.nasbench201 import PoolingReduction
from nas.training.run import to_device, use_precision

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {"none"}))
def test_an_operation_and_its_gradient_are_those_of_the_cpu(
    device: torch.device, name: str, stride: int, channels_last: bool
) -> None:
    check(lambda: build_operation(name, 16, stride, Norm()), device, 12, channels_last)


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: AuxiliaryHead("cifar", 16, 4), 8),
        (lambda: AuxiliaryHead("imagenet", 16, 4), 7),
        (lambda: PoolingReduction(16, 32, Norm()), 13),
    ],
    ids=["auxiliary head", "auxiliary head for ImageNet", "reduction of an odd size"],
)
def test_other_parts_that_pool_are_those_of_the_cpu(
    device: torch.device, make: Callable[[], nn.Module], size: int, channels_last: bool
) -> None:
    check(make, device, size, channels_last)


def check(
    make: Callable[[], nn.Module], device: torch.device, size: int, channels_last: bool
) -> None:
    """Compares the output of a module and the gradient of its input."""
    use_precision("float32")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 16, size, size, generator=generator).contiguous(memory_format=layout)

    def run(place: torch.device) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        operation = to_device(make(), place, channels_last)
        x = images.to(place).requires_grad_()
        out = operation(x)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        gradient = gradient.contiguous(memory_format=layout) if gradient.dim() == 4 else gradient
        out.backward(gradient.to(place))
        assert x.grad is not None
        return out.detach().cpu(), x.grad.cpu()

    for found, expected in zip(run(device), run(torch.device("cpu")), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
