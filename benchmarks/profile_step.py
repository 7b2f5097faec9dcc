"""Where the time of a step goes, kernel by kernel: `python -m benchmarks.profile_step`.

Each step runs under PyTorch's profiler on a few architectures, after as many without it. The table
says how long the device was at work (the sum of its kernels), of how long a step takes: what is
missing is the host, which launches them. On a CPU the operations stand in place of the kernels.
"""

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Stopwatch, print_table, save, wait_for
from benchmarks.step import SPACES
from benchmarks.subjects import Setting, SupernetSteps, random_batch
from nas.kernels.fused import KERNELS
from nas.training.allocator import keep_freed_memory
from nas.training.run import PRECISIONS, autocast_for, choose_device, use_precision

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = _options(arguments)
    device = choose_device(options.device)
    keep_freed_memory()
    use_precision(options.precision)
    setting = Setting(
        SPACES[options.space],
        random_batch(options.batch_size, device),
        autocast_for(options.precision, device),
    )
    subject = SupernetSteps(setting, options.sampler, options.kernels)
    found = [measure(subject, step, options) for step in subject.steps(0)]
    print_table([{k: v for k, v in row.items() if k != "kernels"} for row in found])
    for row in found:
        print(f"\n{row['step']}: the longest, summed by name")
        print_table([{**kernel, "name": shortened(kernel["name"])} for kernel in row["kernels"]])
    if options.output:
        kept = {k: v for k, v in vars(options).items() if k not in ("output", "trace")}
        save(options.output, device, kept, found)


def measure(subject: SupernetSteps, step: str, options: argparse.Namespace) -> Row:
    """Time of a step, of the device in it, and the kernels that took most of that."""
    device, rounds = subject.setting.device, range(options.rounds)
    watch = Stopwatch(device)
    for number in rounds:
        subject.steps(number)[step]()  # compiles or fills caches for this architecture
        watch.time(step, number, subject.steps(number)[step])
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for number in rounds:
            subject.steps(number)[step]()
        wait_for(device)
    if options.trace:
        options.trace.mkdir(parents=True, exist_ok=True)
        path = options.trace / f"{step.replace(' ', '_')}_{options.space}.json.gz"
        profiler.export_chrome_trace(str(path))
    kernels = kernels_of(profiler, device, options.rounds)
    device_ms = sum(kernel["ms"] for kernel in kernels)
    return {
        "step": step,
        "ms": watch.mean_ms(step),
        "device ms": device_ms,
        "device %": 100 * device_ms / watch.mean_ms(step),
        "launches": sum(kernel["calls"] for kernel in kernels),
        "kernels": kernels[: options.top],
    }


def kernels_of(profiler: profile, device: torch.device, rounds: int) -> list[Row]:
    """Name, milliseconds and calls a step of each kernel (on a CPU: operation), longest first."""
    found = []
    for event in profiler.key_averages():
        is_kernel = event.device_type == DeviceType.CUDA
        if is_kernel != (device.type == "cuda") or getattr(event, "is_user_annotation", False):
            continue
        time_us = event.self_device_time_total if is_kernel else event.self_cpu_time_total
        ms, calls = time_us / 1000 / rounds, event.count / rounds
        found.append({"name": event.key, "ms": ms, "calls": calls, "us each": 1000 * ms / calls})
    return sorted(found, key=lambda kernel: -float(kernel["ms"]))


def shortened(name: str, length: int = 90) -> str:
    """The name of a kernel without its template's arguments and its parameters."""
    bare, known = name, ""
    while bare != known:
        bare, known = re.sub(r"<[^<>]*>", "", bare), bare
    return bare.removeprefix("void ").partition("(")[0][:length] or name[:length]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--space", choices=SPACES, default="nasbench201")
    add("--batch-size", type=int, default=64, help="default: 64")
    add("--sampler", default="gdas", help="default: gdas")
    parser.add_argument("--kernels", choices=KERNELS, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    add("--rounds", type=int, default=8, help="architectures (default 8)")
    add("--top", type=int, default=15, help="kernels that are listed (default 15)")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    add("--trace", type=Path, help="folder for traces, to be opened in a browser (Perfetto)")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
