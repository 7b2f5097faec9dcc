"""What share of a fleet's time is not in vain: `python -m benchmarks.fleet --output FILE`.

Fleets of several sizes before several stores, each with checkpoints after an epoch, at Young's
interval and at the best one; see `benchmarks.fleet_simulation`.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.fleet_simulation import Fleet, simulate
from nas.files import replace_text

FACTORS = tuple(2.0 ** (half / 2) for half in range(-6, 7))
"""Intervals to try, as multiples of Young's."""
EPOCH = 60.0
"""Seconds of an epoch of the simulated search, after each of which a run saves its state."""
_NFS = Fleet(
    searches=1,
    machines=1,
    work=3600.0,
    checkpoint_bytes=13.7e6,
    start_bytes=196e6,
    start_ops=6000,
    bandwidth=1e9,
    ops=2e3,
)
LARGE = 1000
"""Fleets of more searches take a minute an interval: two intervals are tried."""
STORES = {
    "NFS server": _NFS,
    "NFS server and checkpoints of 1 GB": replace(_NFS, checkpoint_bytes=1e9),
    "object store": replace(_NFS, checkpoint_ops=2, start_ops=4, bandwidth=2e10, ops=3e4),
}
"""One file server, with the Python environment on it; or a service, and environments in images."""


def best_interval(fleet: Fleet, factors: Sequence[float] = FACTORS) -> float:
    """The interval of most goodput, in seconds.

    Goodput over the logarithm of the interval is flat at its top, and preemptions are random: the
    top of a parabola through the points around the best one is less noisy than that point.
    """
    intervals = [fleet.young * factor for factor in factors]
    goodputs = [simulate(replace(fleet, interval=interval)).goodput for interval in intervals]
    best = int(np.argmax(goodputs))
    near = slice(max(best - 2, 0), best + 3)
    logs = np.log(intervals[near])
    if best in (0, len(factors) - 1):
        return intervals[best]
    curvature, slope, _ = np.polyfit(logs - logs.mean(), goodputs[near], 2)
    if curvature >= 0:
        return intervals[best]
    top = float(np.clip(-slope / (2 * curvature) + logs.mean(), logs[0], logs[-1]))
    return math.exp(top)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--per-machine", type=int, default=4, help="searches a machine")
    parser.add_argument("--output", type=Path, help="results file")
    parser.add_argument("--plot", type=Path, help="picture file")
    options = parser.parse_args()
    fleets = {
        f"{name}, {size} searches": replace(
            fleet, searches=size, machines=max(size // options.per_machine, 1)
        )
        for name, fleet in STORES.items()
        for size in options.sizes
    }
    rows, curves = [], {}
    for name, fleet in fleets.items():
        is_large = fleet.searches > LARGE
        factors = (1.0, 8.0) if is_large else FACTORS
        outcomes = {f: simulate(replace(fleet, interval=fleet.young * f)) for f in factors}
        best = max(outcomes, key=lambda factor: outcomes[factor].goodput)
        found = {
            "Young": (fleet.young, outcomes[1.0]),
            "best": (fleet.young * best, outcomes[best]),
        }
        if not is_large:
            found = {"every epoch": (EPOCH, simulate(replace(fleet, interval=EPOCH))), **found}
        for label, (interval, outcome) in found.items():
            row = outcome.row(replace(fleet, interval=interval))
            rows.append({"store": name, "checkpoints": label, **row})
            print(rows[-1], flush=True)
        curves[name] = [
            {"interval s": fleet.young * factor, "goodput": outcome.goodput}
            for factor, outcome in outcomes.items()
        ]
    if options.output:
        content = {
            "fleets": {name: asdict(fleet) for name, fleet in fleets.items()},
            "rows": rows,
            "curves": curves,
        }
        replace_text(options.output, json.dumps(content, indent=1) + "\n")
    if options.plot:
        plot(curves, options.plot)


def plot(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Goodput over the interval, a panel a store."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # after the choice of a backend without a display

    stores = list(dict.fromkeys(name.partition(", ")[0] for name in curves))
    figure, panels = pyplot.subplots(1, len(stores), figsize=(10, 3.4), sharey=True, squeeze=False)
    for panel, store in zip(panels[0], stores, strict=True):
        for name, points in curves.items():
            if name.partition(", ")[0] == store:
                seconds = [point["interval s"] for point in points]
                goodput = [100 * point["goodput"] for point in points]
                panel.plot(seconds, goodput, "o-", markersize=3, label=name.partition(", ")[2])
        panel.set(xscale="log", xlabel="seconds between checkpoints", title=store, ylim=(0, 100))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="lower left")
    panels[0][0].set_ylabel("goodput, %")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
