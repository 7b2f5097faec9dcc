"""Measures the operations of a space on a device: from a search space to a latency table."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from nas.cost.coverage import Draw, cover
from nas.cost.latency import Calibration, Conditions, Errors, LatencyTable, operation_keys
from nas.cost.tracing import Operation, trace
from nas.errors import UserError
from nas.genotype import Genotype
from nas.monitor.console import Progress
from nas.spaces import SearchSpace
from nas.spaces.space import without_weights
from nas.training.run import autocast_for, to_device

QUANTILE = 0.05
"""Of the repetitions: other work on the machine only ever slows them down."""

NUM_QUEUED = 10
"""Calls in a row on an accelerator, whose queue hides the time that it takes to start one."""

Timer = Callable[[Callable[[], object], torch.device, int], float]
"""Milliseconds of a call, on the device, as the mean over so many in a row."""


def time_ms(call: Callable[[], object], device: torch.device, num_calls: int = 1) -> float:
    """Milliseconds that `call` takes on `device`, as the mean over `num_calls` in a row."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(num_calls):
            call()
        return 1000 * (time.perf_counter() - start) / num_calls
    stream = torch.cuda.current_stream(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record(stream)
    for _ in range(num_calls):
        call()
    last.record(stream)
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last)) / num_calls


@dataclass(frozen=True)
class Profiler:
    """How a space is measured.

    Attributes:
        space: The space, with the sizes of the networks that are to be predicted.
        conditions: What is measured; the names in it are not checked.
        device: Where.
        repetitions: Measurements of each operation and network, in turns.
        seed: Of the random networks.
        timer: Takes the time; a test passes its own.
    """

    space: SearchSpace
    conditions: Conditions
    device: torch.device
    repetitions: int = 50
    seed: int = 0
    timer: Timer = time_ms

    def table(self, num_calibration: int = 12, num_checked: int = 50) -> LatencyTable:
        """Measures all operations and random networks, side by side; shows how far it is.

        Args:
            num_calibration: Networks that the calibration is fitted on.
            num_checked: Further networks, on which predictions are compared with measurements.
                Small spaces have fewer of both.

        Raises:
            UserError: a network cannot run on these images, or the space has too few.
        """
        draw = Draw(self.space, self.seed)
        genotypes = draw.distinct(num_calibration + num_checked)
        if len(genotypes) < 2:
            raise UserError(f"space={self.space.name} has one network: there is nothing to profile")
        num_calibration = min(num_calibration, len(genotypes) // 2)
        kept = self._cover(draw, genotypes)
        with torch.no_grad(), autocast_for(self.conditions.precision, self.device)():
            operations = self._operations(kept)
            networks = [self._network(genotype) for genotype in genotypes]
            keys = [operation_keys(network, self.conditions) for network in networks]
            operations_ms, networks_ms = self._measure(operations, networks)
        table = LatencyTable(self.conditions, operations_ms)
        sums, counts = [table.predict_keys(own) for own in keys], [len(own) for own in keys]
        fitted, checked = slice(num_calibration), slice(num_calibration, None)
        calibration = Calibration.fit(sums[fitted], counts[fitted], networks_ms[fitted])
        predicted = [
            calibration.latency_ms(*pair)
            for pair in zip(sums[checked], counts[checked], strict=True)
        ]
        errors = errors_of(predicted, networks_ms[checked])
        return replace(table, calibration=calibration, errors=errors)

    def _cover(self, draw: Draw, genotypes: Iterable[Genotype]) -> list[Genotype]:
        """Genotypes that together run all operations."""

        def keys_of(genotype: Genotype) -> list[str]:
            network = without_weights(partial(self.space.build_network, genotype))
            return operation_keys(network, self.conditions)

        return cover(draw, keys_of, genotypes)

    def _operations(self, genotypes: Iterable[Genotype]) -> dict[str, Operation]:
        """The operations of these networks by key, with inputs laid out as they are there."""
        images = self._images()
        found: dict[str, Operation] = {}
        for genotype in genotypes:
            for operation in trace(self._network(genotype), images):
                if operation.key not in found:
                    found[operation.key] = operation.detached()
        return found

    def _measure(
        self, operations: Mapping[str, Operation], networks: Sequence[nn.Module]
    ) -> tuple[dict[str, float], list[float]]:
        """Milliseconds of each operation, by key, and of each network.

        All take turns, so that a machine that is busy for a while slows all of them down.
        """
        times: list[list[float]] = []
        with Progress(
            self.repetitions * (len(operations) + len(networks)), unit="measurement"
        ) as progress:
            for _ in range(self.repetitions):
                times.append([])
                for call, num_calls in self._calls(operations.values(), networks):
                    call()  # untimed: the first is slower
                    times[-1].append(self.timer(call, self.device, num_calls))
                    progress.update(sum(map(len, times)))
        typical = np.quantile(times, QUANTILE, axis=0).tolist()
        return dict(zip(operations, typical, strict=False)), typical[len(operations) :]

    def _calls(
        self, operations: Iterable[Operation], networks: Iterable[nn.Module]
    ) -> Iterator[tuple[Callable[[], object], int]]:
        """What is timed in a round, and as the mean of how many calls."""
        for operation in operations:
            num_calls = NUM_QUEUED if self.device.type == "cuda" else 1
            yield operation.prepared(self.device), num_calls
        images = self._images()
        for network in networks:
            yield partial(network, images), 1

    def _network(self, genotype: Genotype) -> nn.Module:
        network = self.space.build_network(genotype).eval().requires_grad_(False)
        return to_device(network, self.device, self.conditions.channels_last)

    def _images(self) -> Tensor:
        size = self.conditions.image_size
        shape = (self.conditions.batch_size, self.conditions.in_channels, size, size)
        is_last = self.conditions.channels_last
        layout = torch.channels_last if is_last else torch.contiguous_format
        return torch.rand(shape).to(self.device, memory_format=layout)


def errors_of(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> Errors:
    """How far predictions are from measurements of the same networks, at least one."""
    from scipy.stats import spearmanr  # slow to import, and only needed here

    percent = 100 * abs(np.array(predicted_ms) / np.array(measured_ms) - 1)
    varies = min(len(set(predicted_ms)), len(set(measured_ms))) > 1
    return Errors(
        num_networks=len(percent),
        median_percent=float(np.median(percent)),
        mean_percent=float(percent.mean()),
        max_percent=float(percent.max()),
        spearman=float(spearmanr(predicted_ms, measured_ms).statistic) if varies else None,
    )
