"""Measures a space on a device: `python profile_space.py space=nasbench201 data=cifar10`.

Each layer and function that a network of the space can run is timed by itself, at the sizes that
it has there. The latency table that is written, `latency.json`, predicts any network of the space
(`nas.cost.latency`); how well, random networks tell that are measured as a whole.
"""

import conf.at_once  # noqa: F401, I001 - before what takes seconds
import time
from dataclasses import replace
from pathlib import Path

import torch

from conf.app import launch
from conf.settings import Launch
from conf.build import build_space
from conf.profile_schema import ProfileConfig
from nas.data import DataInfo, describe_images
from nas.files import check_writable
from nas.cost.latency import Conditions, LatencyTable
from nas.monitor.console import summary_table
from nas.probe import probe
from nas.spaces import Custom
from nas.training.allocator import keep_freed_memory
from nas.training.profiling import Profiler
from nas.training.run import (
    choose_device,
    device_name,
    seed_everything,
    use_precision,
    use_threads,
)

FILE_NAME = "latency.json"


def profile(config: ProfileConfig, launched: Launch) -> float:
    """Measures a space; returns the median error of the checked predictions, in percent."""
    start = time.perf_counter()
    keep_freed_memory()
    use_threads(config.threads)
    use_precision(config.precision)
    output = Path(config.output).expanduser() if config.output else launched.run_dir / FILE_NAME
    check_writable(output)
    device = choose_device(config.device)
    seed_everything(config.seed)
    info = images_of(config)
    space = build_space(config.space, info)
    if isinstance(space, Custom):
        images = torch.rand(2, info.in_channels, info.image_size, info.image_size)
        probe(space.build_supernet(), images, info.num_classes)
    conditions = Conditions(
        space=space.name,
        device=device_name(device),
        torch=torch.__version__,
        precision=config.precision,
        threads=torch.get_num_threads(),
        channels_last=config.channels_last,
        batch_size=config.batch_size,
        in_channels=info.in_channels,
        image_size=info.image_size,
    )
    profiler = Profiler(space, conditions, device, config.repetitions, config.seed)
    table = profiler.table(config.num_calibration, config.num_checked)
    table.save(output)
    print(summary(table, output, time.perf_counter() - start))
    return table.errors.median_percent if table.errors else 0.0


def images_of(config: ProfileConfig) -> DataInfo:
    """The images that networks are measured on: those of the data, but for what is given."""
    names = ("in_channels", "image_size", "num_classes")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    num_classes = given.pop("num_classes", None)
    if num_classes is not None:
        given["class_names"] = tuple(map(str, range(num_classes)))
    if len(given) < len(names):
        return replace(describe_images(config.data), **given)
    return DataInfo(name="given", mean=(), std=(), num_train=0, **given)


def summary(table: LatencyTable, output: Path, seconds: float) -> str:
    """What is printed in the end."""
    conditions, errors = table.conditions, table.errors
    rows = [
        ("table", f"{output}"),
        ("operations", f"{len(table.operations_ms):,}"),
        ("device", f"{conditions.device}, {conditions.threads} threads, {conditions.precision}"),
        ("images", f"{conditions.batch_size} of {conditions.image_size}x{conditions.image_size}"),
        ("time", f"{seconds:.0f} s"),
    ]
    if errors is not None:
        rank = "-" if errors.spearman is None else f"{errors.spearman:.3f}"
        rows[2:2] = [
            (
                "error",
                f"median {errors.median_percent:.1f} %, mean {errors.mean_percent:.1f} %, maximum "
                f"{errors.max_percent:.1f} % (of {errors.num_networks} other networks)",
            ),
            ("rank correlation", f"{rank} (Spearman)"),
        ]
    return summary_table(rows, "profile done")


def main() -> None:
    """Entry point of `nas-profile`."""
    launch("profile_space", ProfileConfig, profile)


if __name__ == "__main__":
    main()
