"""How a step grows with the sizes of the supernet: `python -m benchmarks.scaling`.

One size of the NAS-Bench-201 space is varied at a time around the published search (C=16, N=5, 4
nodes, 5 operations, batch 64). Beside each measured time stands the roofline: what the machine
needs at least for the operations and the bytes that the step was counted to have.
"""

import argparse
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import torch

from benchmarks.measure import Stopwatch, peak_mib, print_table, save, tensors_mib
from benchmarks.roofline import Machine, cost_of
from benchmarks.subjects import Setting, SupernetSteps, random_batch
from nas.kernels.fused import KERNELS
from nas.spaces import NASBench201
from nas.training.allocator import keep_freed_memory
from nas.training.run import PRECISIONS, autocast_for, choose_device

BASE = NASBench201(in_channels=3, num_classes=10)
BASE_BATCH = 64
OPERATIONS = BASE.operations
VALUES: dict[str, tuple[int, ...]] = {
    "channels": (8, 16, 32, 64),
    "cells_per_stage": (1, 3, 5, 8),
    "nodes": (3, 4, 5, 6),
    "operations": (2, 3, 4, 5),
    "batch": (16, 64, 128, 256),
}
STEPS = ("weight step", "logits step")

Row = dict[str, object]


def main() -> None:
    """Entry point."""
    options = _options()
    device = choose_device(options.device)
    keep_freed_memory()
    machine = Machine.measured(device, options.precision)
    print(
        f"matrix product {machine.flops_per_s / 1e9:,.0f} GFLOP/s, "
        f"copy {machine.bytes_per_s / 1e9:,.1f} GB/s\n",
        flush=True,
    )
    rows = [
        {"varied": size, "value": value, **row}
        for size in options.vary
        for value in VALUES[size]
        for row in measure(setting_of(size, value, device, options.precision), machine, options)
    ]
    print_table(rows)
    if options.output:
        shown = ("kernels", "precision", "rounds")
        settings = {**{name: getattr(options, name) for name in shown}, **vars(machine)}
        save(options.output, device, settings, rows)
    if options.plot:
        plot(rows, options.plot)


def setting_of(size: str, value: int, device: torch.device, precision: str) -> Setting:
    """The base with one size set to `value`."""
    autocast = autocast_for(precision, device)
    if size == "batch":
        return Setting(BASE, random_batch(value, device), autocast)
    # Operations are added in the order of what they cost: none, skip, pool, 1x1, 3x3.
    names = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
    changed: object = names[:value] if size == "operations" else value
    space = replace(BASE, **{size: changed})  # type: ignore[arg-type]
    return Setting(space, random_batch(BASE_BATCH, device), autocast)


def measure(setting: Setting, machine: Machine, options: argparse.Namespace) -> list[Row]:
    """Mean time, roofline and memory of the two steps, over the same architectures."""
    subject = SupernetSteps(setting, "gdas", options.kernels)
    plain = SupernetSteps(setting, "gdas", "plain")
    watch = Stopwatch(setting.device)
    rooflines: dict[str, list[float]] = {step: [] for step in STEPS}
    for number in range(options.rounds):
        for step in STEPS:
            run = subject.steps(number)[step]
            run()  # compiles or fills caches for this architecture
            watch.time(step, number, run)
            # Counted on the plain path: what has to be done, not what fusing saves of it.
            rooflines[step].append(1000 * cost_of(plain.steps(number)[step], machine).roofline_s)
    stays = tensors_mib(subject.static_tensors())
    return [
        {
            "step": step,
            "ms": watch.mean_ms(step),
            "roofline ms": statistics.mean(rooflines[step]),
            "peak MiB": peak_mib(subject.steps(0)[step], setting.device),
            "stays MiB": stays,
        }
        for step in STEPS
    ]


def plot(rows: list[Row], path: Path) -> None:
    """One panel a size: measured times as lines with marks, the roofline dashed."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # after the choice of a backend without a display

    sizes = list(dict.fromkeys(str(row["varied"]) for row in rows))
    figure, (panels,) = pyplot.subplots(
        1, len(sizes), figsize=(3 * len(sizes), 3.2), sharey=True, squeeze=False
    )
    for panel, size in zip(panels, sizes, strict=True):
        values = VALUES[size]
        for color, step in zip(("C0", "C1"), STEPS, strict=True):
            chosen = [row for row in rows if row["varied"] == size and row["step"] == step]
            panel.plot(values, [row["ms"] for row in chosen], "o-", color=color, label=step)
            floor = [row["roofline ms"] for row in chosen]
            panel.plot(values, floor, "--", color=color, label=f"{step}, roofline")
        panel.set(xlabel=size.replace("_", " "), xticks=values, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms")
    panels[0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"drawn to {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--rounds", type=int, default=12, help="architectures that are timed (default 12)")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    parser.add_argument("--vary", nargs="+", choices=VALUES, default=list(VALUES))
    parser.add_argument("--kernels", choices=KERNELS, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    add("--output", type=Path, help="results file, JSON")
    add("--plot", type=Path, help="picture, PNG or SVG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
