"""Which batch norms can be made one over all ranks; what they compute is in `ranks_worker.py`."""

import pytest
import torch
from torch import nn

from nas import elastic
from nas.distributed import Ranks
from nas.errors import UserError
from nas.sync_norm import SyncBatchNorm2d, synchronise_batch_norm
from nas.values import ValueChoice

CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # nothing runs, so no GPU is needed
TWO = Ranks(0, 2)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_norms_of_open_width_are_refused(device: torch.device) -> None:
    """PyTorch's own would replace them, and know the largest width alone."""
    width = ValueChoice([4, 8], "width")
    model = nn.Sequential(nn.BatchNorm2d(3), elastic.ConvNorm2d(3, width, 3))
    with pytest.raises(UserError, match=r"no such norm for 1.norm, .*nas.elastic.BatchNorm2d"):
        synchronise_batch_norm(model, TWO, device)
    assert type(model[0]) is nn.BatchNorm2d
    assert synchronise_batch_norm(model, Ranks(), device) is model


def test_what_a_cpu_has_no_norm_for_is_refused_there() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(UserError, match=r"sync_batch_norm: there is no such norm for 1, .*Norm1d"):
        synchronise_batch_norm(model, TWO, CPU)
    assert isinstance(synchronise_batch_norm(model, TWO, CUDA)[1], nn.SyncBatchNorm)  # type: ignore[index]


def test_the_others_are_replaced_and_keep_their_state() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.3)
    found = synchronise_batch_norm(nn.Sequential(norm), TWO, CPU)[0]  # type: ignore[index]
    assert isinstance(found, SyncBatchNorm2d) and found.momentum == 0.3
    assert found.weight is norm.weight and found.running_mean is norm.running_mean
