"""Folders of runs as searches and retrainings leave them, made without any training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas.genotype import Confidence, Genotype

GENOTYPE = Genotype(
    "nasbench201",
    ("none", "nor_conv_3x3"),
    {
        name: "nor_conv_3x3"
        for name in ("cell/0->1", "cell/0->2", "cell/1->2", "cell/0->3", "cell/1->3", "cell/2->3")
    },
    {"cell/0->1": Confidence(0.75, 0.5, 0.8)},
)
TEXT = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"


def write_search(
    folder: Path,
    *,
    accuracy: float = 91.25,
    settings: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = ("epochs=3",),
    finished: bool = True,
    text: str = TEXT,
) -> Path:
    """A search of three epochs with one choice."""
    (folder / ".hydra").mkdir(parents=True)
    lines = [
        {
            "step": 10 * (epoch + 1),
            "epoch": epoch,
            "loss/train": 2.0 - epoch / 2,
            "loss/validation": 2.1 - epoch / 2,
            "accuracy/genotype_validation": accuracy - 2 + epoch,
            "architecture/temperature": 5.0 - epoch,
            "architecture/entropy": 0.9,
            "entropy/cell/0->1": 0.9,
            "margin/cell/0->1": 0.1,
            "probability/cell/0->1/none": 0.4 - epoch / 20,
            "probability/cell/0->1/nor_conv_3x3": 0.6 + epoch / 20,
        }
        for epoch in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = {"seed": 0, "epochs": 3, "data": {"name": "digits"}, "space": {"name": "nasbench201"}}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({**given, **(settings or {})}))
    if defaults is not None:
        (folder / ".hydra" / "defaults.yaml").write_text(yaml.safe_dump({**given, **defaults}))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    if finished:
        (folder / "genotype.json").write_text(GENOTYPE.to_json())
        summary = {
            "kind": "search",
            "overrides": list(overrides),
            "metrics": {"accuracy/genotype_validation": accuracy},
            "genotype": text,
            "seconds": 75.0,
            "environment": {"torch": "9.9.9", "device": "cpu: of a test"},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
