"""Batch norm over the images of all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas import elastic
from nas.distributed import Ranks
from nas.errors import UserError


def synchronise_batch_norm(model: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """`model` with batch norms that normalise by the statistics of the whole batch.

    On GPUs they are PyTorch's own, which have no implementation for CPUs.

    Raises:
        UserError: a batch norm is of a kind for which there is none.
    """
    if ranks.size == 1:
        return model
    for name, module in model.named_modules():
        # PyTorch's would take the place of one of open width, and know one width alone.
        is_open = isinstance(module, elastic.BatchNorm2d)
        is_known = type(module) is nn.BatchNorm2d or device.type == "cuda"
        if isinstance(module, _BatchNorm) and (is_open or not is_known):
            raise UserError(
                f"sync_batch_norm: there is no such norm for {name}, of the type "
                f"{type(module).__module__}.{type(module).__name__}: set it to false"
            )
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                norm = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
                norm.affine, norm.track_running_stats = child.affine, child.track_running_stats
                norm._parameters, norm._buffers = child._parameters, child._buffers
                setattr(parent, name, norm.train(child.training))
    return model


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are those of the images of all ranks.

    Each rank must have as many images `[B, C, H, W]`.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, in the shape of `images`."""
        if not (self.training and dist.is_initialized()):
            return super().forward(images)
        mean = _mean_over_ranks(images.mean((0, 2, 3)))
        # In two steps: E[x^2] - E[x]^2 loses the digits that matter where the mean is large.
        centred = images - mean[:, None, None]
        variance = _mean_over_ranks(centred.square().mean((0, 2, 3)))
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach(), images.numel() // images.shape[1])
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        outputs = centred * scale[:, None, None]
        return outputs if self.bias is None else outputs + self.bias[:, None, None]

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        count *= dist.get_world_size()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)


def _mean_over_ranks(local: Tensor) -> Tensor:
    mean: Tensor = _Sum.apply(local) / dist.get_world_size()
    return mean


class _Sum(torch.autograd.Function):
    """The sum over the ranks. It is its own adjoint, so any derivative can be taken."""

    @staticmethod
    def forward(ctx: object, local: Tensor) -> Tensor:
        total = local.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(gradient)
        return total
