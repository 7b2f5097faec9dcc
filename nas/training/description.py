"""What a finished retraining says of its network: the content of `model.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nas.data.preprocessing import Preprocessing
from nas.deploy.description import ModelDescription
from nas.genotype import Genotype
from nas.network import Cost
from nas.release import release
from nas.spaces import SPACES
from nas.training.retrain import Retrain
from nas.training.run import device_name

RECIPE = (
    *("epochs", "batch_size", "weights", "auxiliary_weight", "drop_path", "label_smoothing"),
    *("ema_decay", "precision", "seed"),
)
AUGMENTATION = ("crop_padding", "flip", "cutout", "limit")
"""Settings that tell how a network was trained; paths on a machine are not among them."""


def describe_network(run: Retrain, genotype: Genotype, cost: Cost) -> ModelDescription:
    """The description of the network that `run` has trained.

    The accuracy is that of the weights which are saved: the moving average where there is one.

    Args:
        run: The finished retraining.
        genotype: Of the network.
        cost: Of the network, without its auxiliary head.
    """
    settings, info = run.folder.settings, run.data.info
    network, data = _section(settings, "network"), _section(settings, "data")
    result = run.result if run.result_ema is None else run.result_ema
    assert result is not None
    return ModelDescription(
        space=genotype.space,
        sizes=network_sizes(genotype, network),
        class_names=info.class_names,
        preprocessing=Preprocessing.of(info),
        model=network.get("model"),
        arguments=network.get("arguments") or {},
        data={
            "name": info.name,
            "num_train": info.num_train,
            "num_test": info.num_test,
            **{name: data[name] for name in AUGMENTATION if name in data},
        },
        recipe={
            **{name: settings[name] for name in RECIPE if name in settings},
            "torch": torch.__version__,
        },
        accuracy={
            "test_top1": result.top1,
            "test_top5": result.top5,
            "weights": "last" if run.result_ema is None else "moving average",
        },
        cost={
            "num_parameters": cost.num_parameters,
            "multiply_adds": cost.multiply_adds,
            **_search_cost(settings.get("genotype")),
            "training_seconds": round(run.seconds, 1),
            "device": device_name(run.device),
        },
        release=release(),
    )


def network_sizes(genotype: Genotype, given: Mapping[str, Any]) -> dict[str, Any]:
    """All sizes of the network of `genotype`: given, of the genotype, or else the space's default.

    A default may be another one in a later release, so those that count are kept, too.

    Args:
        genotype: The architecture.
        given: Sizes by name, None where they are left to the space; other names are passed by.
    """
    fields = SPACES.get(genotype.space).__dataclass_fields__  # type: ignore[attr-defined]
    known = [name for name in given if name in fields and name not in ("model", "arguments")]
    defaults = {name: fields[name].default for name in known}
    set_here = {name: given[name] for name in known if given[name] is not None}
    return {**defaults, **genotype.sizes, **set_here}


def _search_cost(genotype: object) -> dict[str, float]:
    """How long the search took, where the setting `genotype` is a file in the folder of one."""
    path = Path(str(genotype))
    try:
        folder = path if path.is_dir() else path.parent
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        is_search = summary["kind"] == "search"
        return {"search_seconds": round(float(summary["seconds"]), 1)} if is_search else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _section(settings: Mapping[str, object], name: str) -> dict[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}
