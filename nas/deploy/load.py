"""From a folder to a network with its weights: `nas.load`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.commands import command_for
from nas.deploy.description import DESCRIPTION, GENOTYPE, WEIGHTS, ModelDescription
from nas.deploy.weights import read_weights
from nas.errors import UserError
from nas.genotype import Genotype
from nas.network import build_network
from nas.spaces.custom import Custom, dotted_name, import_factory
from nas.training.checkpoint import last_checkpoint

AUXILIARY = "auxiliary."
"""Begins the names of the weights of an auxiliary head, which only training needs."""

ModelOrName = str | Callable[..., Any]


def load(
    path: str | Path, *, model: ModelOrName | None = None, trust_recorded_model: bool = False
) -> nn.Module:
    """The trained network in the folder `path`, on the host, in evaluation mode.

    It takes float32 images `[B, C, H, W]`, normalised as `nas.Predictor(path).preprocess` does it,
    and gives logits `[B, num_classes]`. Where a moving average of the weights was trained, the
    weights are its. No code is run but that of this package, unless a model of one's own is named.

    Args:
        path: A folder that `export.py` wrote, or that of a finished run of `retrain.py`.
        model: For the space `custom`: the class or function that the network is made from, or its
            dotted name, which is imported.
        trust_recorded_model: Import the one that the folder names.

    Raises:
        UserError: no such folder, something in it is missing or damaged, or the model of one's own
            is not named or cannot be imported.
    """
    return TrainedModel.read(Path(path)).network(model, trust_recorded_model=trust_recorded_model)


@dataclass(frozen=True)
class TrainedModel:
    """What a folder says of a trained network.

    Attributes:
        folder: The folder.
        genotype: The architecture.
        description: All else.
    """

    folder: Path
    genotype: Genotype
    description: ModelDescription

    @classmethod
    def read(cls, folder: Path) -> "TrainedModel":
        """Reads all but the weights.

        Raises:
            UserError: no such folder, or something in it is missing or damaged.
        """
        folder = folder.expanduser()
        _check_is_of_a_trained_network(folder)
        description = ModelDescription.load(folder / DESCRIPTION)
        genotype = Genotype.load(folder / GENOTYPE)
        if genotype.space != description.space:
            raise UserError(
                f"{folder}: {GENOTYPE} is of the space '{genotype.space}', {DESCRIPTION} of "
                f"'{description.space}': files of different networks"
            )
        return cls(folder, genotype, description)

    def network(
        self, model: ModelOrName | None = None, *, trust_recorded_model: bool = False
    ) -> nn.Module:
        """The network with its weights; see `load`."""
        name = self._model_name(model, trust_recorded_model)
        description = self.description
        sizes = dict(description.sizes)
        if name is not None:
            import_factory(name, "model")  # the error has the right key
            sizes |= {"model": name, "arguments": dict(description.arguments)}
        try:
            with torch.random.fork_rng(devices=[]):  # the first weights are of no use
                network = build_network(
                    self.genotype,
                    sizes,
                    in_channels=description.preprocessing.in_channels,
                    num_classes=description.num_classes,
                )
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from None
        self._give_weights(network)
        return network.eval()

    def _model_name(self, model: ModelOrName | None, trust_recorded_model: bool) -> str | None:
        """The dotted name of what is imported; None where there is nothing to import."""
        recorded = self.description.model
        if self.genotype.space != Custom.name:
            if model is not None:
                raise UserError(
                    f"model: the network in {self.folder} is of the space {self.genotype.space}, "
                    "not of a model of your own; leave it out"
                )
            return None
        if isinstance(model, str):
            return model
        if model is not None:
            return dotted_name(model)
        if trust_recorded_model and recorded is not None:
            return recorded
        raise UserError(
            f"the network in {self.folder} is of a model of your own ({recorded}), whose code is "
            f"imported and so run: give model={recorded} (nas-predict: --model {recorded}), or "
            "trust_recorded_model=true (--trust-recorded-model) if you trust the folder"
        )

    def _give_weights(self, network: nn.Module) -> None:
        path, expected = self.folder / WEIGHTS, network.state_dict()
        found = read_weights(path)
        weights = {name: tensor for name, tensor in found.items() if name in expected}
        missing = [name for name in expected if name not in found]
        foreign = [n for n in found if n not in expected and not n.startswith(AUXILIARY)]
        for names, what in ((missing, "lacks the weights"), (foreign, "has foreign weights")):
            if names:
                raise UserError(
                    f"{path} does not fit the network: it {what} '{names[0]}'"
                    + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                )
        for name, tensor in weights.items():
            if tensor.shape != expected[name].shape:
                raise UserError(
                    f"{path} does not fit the network: '{name}' is {list(tensor.shape)}, the "
                    f"network needs {list(expected[name].shape)}"
                )
        network.load_state_dict(weights)


def _check_is_of_a_trained_network(folder: Path) -> None:
    """Raises a `UserError` that says what `folder` is instead."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    if (folder / DESCRIPTION).exists():
        return
    if _kind(folder) == "search":
        raise UserError(
            f"{folder} is the folder of a search, which trains no final network: do that with "
            f"{command_for('retrain')} genotype={folder / GENOTYPE}"
        )
    if last_checkpoint(folder).exists():
        raise UserError(
            f"{folder} has no {DESCRIPTION}: the retraining is not finished, or of an earlier "
            f"release; {command_for('retrain')} run_dir={folder} resume=true does what is left to "
            "do"
        )
    raise UserError(
        f"{folder} is neither an export nor the folder of a finished retraining: it has no "
        f"{DESCRIPTION}"
    )


def _kind(folder: Path) -> str | None:
    """What kind of a run wrote `folder`, by its summary or, unfinished, by its checkpoint."""
    try:
        return str(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        state = torch.load(last_checkpoint(folder), "cpu", weights_only=True, mmap=True)
        return str(state["kind"])
    except Exception:  # torch raises many kinds for damaged files
        return None
