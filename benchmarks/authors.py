"""Runs the GDAS authors' own code beside ours, from a checkout of D-X-Y/AutoDL-Projects.

Nothing of it is in this repository: `--authors` names the folder that holds `xautodl/`.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Step
from benchmarks.subjects import WEIGHTS, Setting
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.optimisation.optimizers import Updater
from nas.spaces import darts

_DARTS_NAMES = {
    "sep_conv_3x3": "dua_sepc_3x3",
    "sep_conv_5x5": "dua_sepc_5x5",
    "dil_conv_3x3": "dil_sepc_3x3",
    "dil_conv_5x5": "dil_sepc_5x5",
}


def fits(space: object) -> bool:
    """Whether their code has a network of these sizes: that of DARTS has 3 N cells."""
    return not isinstance(space, darts.DARTS) or space.cells % 3 == 0


class AuthorsSteps:
    """Their one-path supernet with their optimisers, in their memory layout."""

    def __init__(self, setting: Setting, checkout: Path) -> None:
        searchs = _module(checkout, "xautodl.models.cell_searchs")
        space: Any = setting.space
        self._is_darts = isinstance(space, darts.DARTS)
        self._names = [_DARTS_NAMES.get(name, name) for name in space.operations]
        torch.manual_seed(0)
        if self._is_darts:
            network = searchs.NASNetworkGDAS(
                space.channels, space.cells // 3, 4, 4, 3, 10, self._names, False, False
            )
        else:
            network = searchs.TinyNetworkGDAS(
                space.channels, space.cells_per_stage, 4, 10, self._names, False, False
            )
        self.network = network.to(setting.device)
        self._images, self._labels = setting.batch[0].contiguous(), setting.batch[1]
        self._weights = torch.optim.SGD(
            network.get_weights(), lr=0.025, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        self._logits = torch.optim.Adam(
            network.get_alphas(), lr=1e-30, betas=(0.5, 0.999), weight_decay=1e-3
        )

    def steps(self, genotype: Genotype) -> dict[str, Step]:
        """Their two steps with `genotype` as the sample."""
        self._choose(genotype)
        return {"weight step": self._weight_step, "logits step": self._logits_step}

    def _choose(self, genotype: Genotype) -> None:
        """Sets their logits so high that their sampling takes `genotype`."""
        tables = self.network.get_alphas()
        names = list(genotype.choices.values())
        per_table = len(names) // len(tables)
        with torch.no_grad():
            for number, table in enumerate(tables):
                table.zero_()
                for row, name in enumerate(names[number * per_table : (number + 1) * per_table]):
                    table[row, self._names.index(_DARTS_NAMES.get(name, name))] = 100.0

    def _backward(self) -> None:
        self.network.zero_grad()
        _, outputs = self.network(self._images)
        nn.functional.cross_entropy(outputs, self._labels).backward()

    def _weight_step(self) -> None:
        self._backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5)
        self._weights.step()

    def _logits_step(self) -> None:
        self._backward()
        self._logits.step()


class AuthorsChild:
    """Their plain network, which runs every edge, dead or not; NAS-Bench-201 only."""

    def __init__(self, setting: Setting, genotype: Genotype, checkout: Path) -> None:
        searchs = _module(checkout, "xautodl.models.cell_searchs")
        infers = _module(checkout, "xautodl.models.cell_infers.tiny_network")
        space: Any = setting.space
        structure = searchs.CellStructure.str2structure(genotype_text(genotype))
        network = infers.TinyNetwork(space.channels, space.cells_per_stage, structure, 10)
        self._network = network.to(setting.device, memory_format=torch.channels_last)
        self._updater = Updater(self._network.parameters(), WEIGHTS)
        self._images, self._labels = setting.batch

    def step(self) -> None:
        """Forward, backward, optimiser."""
        _, outputs = self._network(self._images)
        nn.functional.cross_entropy(outputs, self._labels).backward()
        self._updater.step()


def _module(checkout: Path, name: str) -> Any:
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    return importlib.import_module(name)
