"""Operations on the GPU against the CPU, forward and backward, one at a time."""

import pytest
import torch
from torch import Tensor

from nas.ops import OPERATIONS, Norm, build_operation
from nas.training.run import to_device, use_precision

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {"none"}))
def test_an_operation_and_its_gradient_are_those_of_the_cpu(
    device: torch.device, name: str, stride: int, channels_last: bool
) -> None:
    use_precision("float32")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 16, 12, 12, generator=generator).contiguous(memory_format=layout)

    def run(place: torch.device) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        operation = to_device(build_operation(name, 16, stride, Norm()), place, channels_last)
        x = images.to(place).requires_grad_()
        out = operation(x)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        out.backward(gradient.contiguous(memory_format=layout).to(place))
        assert x.grad is not None
        return out.detach().cpu(), x.grad.cpu()

    for found, expected in zip(run(device), run(torch.device("cpu")), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
