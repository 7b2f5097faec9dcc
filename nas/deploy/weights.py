"""Weights of networks as safetensors: names and tensors, nothing that could run."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nas.errors import UserError, reason
from nas.files import replacing


def write_weights(network: nn.Module, path: Path) -> None:
    """Writes weights and buffers of `network`, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    # Copies, as safetensors refuses weights that two modules share.
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    with replacing(path) as temporary:
        # Not save_file, whose files nobody but their owner can read.
        temporary.write_bytes(save(weights))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name, on the host.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None
