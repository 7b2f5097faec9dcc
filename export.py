"""Exports a trained network: `python export.py run=runs/retrain/mine output=exported`.

The folder that is written has the network as safetensors with its genotype and description, which
`nas.load` takes; as a `torch.export` program and as ONNX, whose outputs are compared with those of
the network; and a model card.
"""

import conf.at_once  # noqa: F401, I001 - before what takes seconds
import time
from pathlib import Path

from conf.app import launch
from conf.settings import Launch
from conf.export_schema import SAFETENSORS, ExportConfig
from nas.deploy.description import ModelDescription
from nas.deploy.export import Export
from nas.deploy.formats import FORMATS, ONNX_PACKAGES, available_formats
from nas.monitor.console import summary_table
from nas.training.run import use_threads

FOLDER = "export"


def export(config: ExportConfig, launched: Launch) -> float:
    """Exports a network; returns the largest relative difference of a format."""
    start = time.perf_counter()
    use_threads(config.threads)
    source = Path(config.run)
    output = Path(config.output) if config.output else source / FOLDER
    formats = available_formats() if config.formats is None else config.formats
    description = Export(
        source=source,
        output=output,
        formats=[name for name in dict.fromkeys(formats) if name != SAFETENSORS],
        tolerance=config.tolerance,
        model=config.model,
        trust_recorded_model=config.trust_recorded_model,
    ).write()
    print(summary(description, output, config.formats is None, time.perf_counter() - start))
    return max((found.relative for found in description.differences.values()), default=0.0)


def summary(description: ModelDescription, output: Path, wants_all: bool, seconds: float) -> str:
    """What is printed in the end."""
    rows = [("network", f"{description.space}, {description.num_classes} classes")]
    rows += [
        (
            FORMATS[name].file,
            f"logits differ by {found.largest:.1e} at most (largest logit "
            f"{found.largest_logit:.3g})",
        )
        for name, found in description.differences.items()
    ]
    if wants_all and "onnx" not in description.differences:
        rows.append(("onnx", f"not written: it needs {ONNX_PACKAGES}"))
    files = sorted(path.name for path in output.expanduser().iterdir() if path.is_file())
    model = "" if description.model is None else f" --model {description.model}"
    rows += [
        ("files", f"{output}/ ({', '.join(files)})"),
        ("time", f"{seconds:.0f} s"),
        ("next", f"nas-predict {output} IMAGE...{model}"),
    ]
    return summary_table(rows, "export done")


def main() -> None:
    """Entry point of `nas-export`."""
    launch("export", ExportConfig, export)


if __name__ == "__main__":
    main()
