"""Many searches on machines that are taken away, as a discrete-event simulation.

Searches wait in a queue; a dispatcher gives one after the other to a free machine, where it starts
(reads from the store, imports), computes, and writes a checkpoint to the store after every
interval. A preempted machine is away for a while; its search goes back to the queue and on from its
last whole checkpoint. All machines share the store's bandwidth in equal parts and stand in one line
for its metadata operations.

Without a limit in the store this is the case of Young, A First Order Approximation to the Optimum
Checkpoint Interval (1974), and Daly, A Higher Order Estimate of the Optimum Checkpoint Interval for
Restart Dumps (2006), which the tests hold it against.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What is simulated. Times in seconds, sizes in bytes, rates a second.

    Attributes:
        searches: That are to be done.
        machines: That do them, one search each at a time.
        work: Computing time of a search.
        interval: Computing time between two checkpoints.
        checkpoint_bytes: That a checkpoint writes, the previous one's copy included.
        checkpoint_ops: Metadata operations of a checkpoint (open, rename, unlink, fsync).
        start_bytes: That a start reads (data, checkpoint).
        start_ops: Metadata operations of a start; imports from a shared disk are thousands.
        start: Time from then until the first step.
        mean_uptime: Of a machine until it is preempted, exponentially distributed.
        away: Until the machine, or another for it, is back.
        dispatch: Time that the queue needs to give out one search.
        bandwidth: Of the store, all machines together.
        machine_bandwidth: Of one machine.
        ops: Metadata operations that the store does.
        seed: Of the preemptions.
    """

    searches: int
    machines: int
    work: float = 4 * 3600.0
    interval: float = 600.0
    checkpoint_bytes: float = 20e6
    checkpoint_ops: float = 12.0
    start_bytes: float = 200e6
    start_ops: float = 200.0
    start: float = 15.0
    mean_uptime: float = 4 * 3600.0
    away: float = 120.0
    dispatch: float = 0.05
    bandwidth: float = 1e9
    machine_bandwidth: float = 100e6
    ops: float = 2000.0
    seed: int = 0

    @property
    def write(self) -> float:
        """Seconds that a checkpoint takes while nobody else uses the store."""
        rate = min(self.machine_bandwidth, self.bandwidth)
        return self.checkpoint_bytes / rate + self.checkpoint_ops / self.ops

    @property
    def restart(self) -> float:
        """Seconds from a search's being given out to its first step, likewise."""
        rate = min(self.machine_bandwidth, self.bandwidth)
        return self.start_bytes / rate + self.start_ops / self.ops + self.start

    @property
    def young(self) -> float:
        """Young's interval, sqrt(2 C M), with the time C of a write and the mean uptime M."""
        return math.sqrt(2 * self.write * self.mean_uptime)

    @property
    def daly(self) -> float:
        """Daly's interval, his equation 37; M where a write takes longer than 2 M."""
        ratio = self.write / (2 * self.mean_uptime)
        if ratio >= 1:
            return self.mean_uptime
        return self.young * (1 + math.sqrt(ratio) / 3 + ratio / 9) - self.write

    def expected_goodput(self) -> float:
        """Daly's equation 13: exact for exponential uptimes and a store that nobody shares."""
        segment = math.expm1((self.interval + self.write) / self.mean_uptime)
        return self.interval / (
            self.mean_uptime * math.exp(self.restart / self.mean_uptime) * segment
        )


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        makespan: Until the last search was done, in seconds.
        useful: Computing time that is in a checkpoint, of all machines together; seconds.
        lost: Computing time that had to be done again.
        writing: Time in which machines waited for their checkpoints.
        starting: Time from a search's being given out to its first step.
        preemptions: Of machines that were at work.
        checkpoints: That were written whole.
        peak_transfers: Machines that used the store's bandwidth at the same time, at most.
        bytes_moved: To and from the store.
        metadata_ops: Of the store.
    """

    makespan: float = 0.0
    useful: float = 0.0
    lost: float = 0.0
    writing: float = 0.0
    starting: float = 0.0
    preemptions: int = 0
    checkpoints: int = 0
    peak_transfers: int = 0
    bytes_moved: float = 0.0
    metadata_ops: float = 0.0

    @property
    def goodput(self) -> float:
        """The share of the time of machines with a search on them that was not in vain."""
        return self.useful / (self.useful + self.lost + self.writing + self.starting)

    def row(self, fleet: Fleet) -> dict[str, object]:
        """As a line of a table."""
        return {
            "searches": fleet.searches,
            "machines": fleet.machines,
            "interval s": round(fleet.interval),
            "goodput %": round(100 * self.goodput, 1),
            "lost %": self._share(self.lost),
            "writing %": self._share(self.writing),
            "starting %": self._share(self.starting),
            "write s": round(self.writing / max(self.checkpoints, 1), 2),
            "store MB/s": round(self.bytes_moved / self.makespan / 1e6, 1),
            "store ops/s": round(self.metadata_ops / self.makespan, 1),
            "peak transfers": self.peak_transfers,
            "hours": round(self.makespan / 3600, 1),
        }

    def _share(self, seconds: float) -> float:
        return round(100 * seconds * self.goodput / self.useful, 1)


@dataclass
class _Machine:
    """One machine; events of an earlier `life` than the present one are void."""

    rng: np.random.Generator
    life: int = 0
    search: int | None = None
    phase: str = ""
    since: float = 0.0
    unsaved: float = 0.0


@dataclass
class Simulation:
    """One run of a `Fleet`."""

    fleet: Fleet
    now: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        fleet = self.fleet
        seeds = np.random.SeedSequence(fleet.seed).spawn(fleet.machines)
        self._machines = [_Machine(np.random.default_rng(seed)) for seed in seeds]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._queue = deque(range(fleet.searches))
        self._free = deque(range(fleet.machines))
        self._done = [0.0] * fleet.searches
        self._remaining = fleet.searches
        self._dispatcher_free = self._metadata_free = 0.0
        # Processor sharing: `_served` is what a transfer that never ends would have had, so one of
        # so many bytes ends when it has grown by them.
        self._served = self._served_at = 0.0
        self._version = 0
        self._active: dict[int, tuple[float, Callable[[int], None]]] = {}
        self._ends: list[tuple[float, int]] = []

    def run(self) -> Outcome:
        """Until all searches are done."""
        for number in range(self.fleet.machines):
            self._schedule_preemption(number)
        self._give_out()
        while self._remaining:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.outcome.makespan = self.now
        return self.outcome

    def _at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, action))

    def _of_life(self, number: int, action: Callable[[int], None]) -> Callable[[], None]:
        """`action` on a machine, unless the machine has been preempted by then."""
        life = self._machines[number].life

        def act() -> None:
            if self._machines[number].life == life:
                action(number)

        return act

    def _give_out(self) -> None:
        while self._queue and self._free:
            number, search = self._free.popleft(), self._queue.popleft()
            machine = self._machines[number]
            machine.search = search
            self._dispatcher_free = max(self.now, self._dispatcher_free) + self.fleet.dispatch
            self._at(self._dispatcher_free, self._of_life(number, self._start))

    def _enter(self, number: int, phase: str) -> None:
        """Begins a phase; what the machine did since the last one is booked."""
        machine, outcome = self._machines[number], self.outcome
        spent = self.now - machine.since
        outcome.starting += spent if machine.phase == "starting" else 0.0
        outcome.writing += spent if machine.phase == "writing" else 0.0
        machine.unsaved += spent if machine.phase == "computing" else 0.0
        machine.phase, machine.since = phase, self.now

    def _start(self, number: int) -> None:
        self._enter(number, "starting")
        self._use_store(number, self.fleet.start_ops, self.fleet.start_bytes, self._prepare)

    def _prepare(self, number: int) -> None:
        self._at(self.now + self.fleet.start, self._of_life(number, self._compute))

    def _compute(self, number: int) -> None:
        self._enter(number, "computing")
        work = min(self.fleet.interval, self.fleet.work - self._done[self._search(number)])
        self._at(self.now + work, self._of_life(number, self._write))

    def _write(self, number: int) -> None:
        self._enter(number, "writing")
        self._use_store(
            number, self.fleet.checkpoint_ops, self.fleet.checkpoint_bytes, self._written
        )

    def _written(self, number: int) -> None:
        machine, search = self._machines[number], self._search(number)
        self._enter(number, "")
        self._done[search] += machine.unsaved
        self.outcome.useful += machine.unsaved
        self.outcome.checkpoints += 1
        machine.unsaved = 0.0
        if self._done[search] < self.fleet.work - 1e-6:
            self._compute(number)
            return
        machine.search = None
        self._remaining -= 1
        self._free.append(number)
        self._give_out()

    def _search(self, number: int) -> int:
        search = self._machines[number].search
        assert search is not None
        return search

    def _schedule_preemption(self, number: int) -> None:
        uptime = self._machines[number].rng.exponential(self.fleet.mean_uptime)
        self._at(self.now + uptime, lambda: self._preempt(number))

    def _preempt(self, number: int) -> None:
        """An idle machine is replaced at once: nobody waits for it."""
        machine = self._machines[number]
        if machine.search is None:
            self._schedule_preemption(number)
            return
        self._enter(number, "")
        self._leave_store(number)
        self.outcome.preemptions += 1
        self.outcome.lost += machine.unsaved
        machine.life, machine.unsaved = machine.life + 1, 0.0
        self._queue.append(machine.search)
        machine.search = None
        self._at(self.now + self.fleet.away, lambda: self._back(number))
        self._give_out()

    def _back(self, number: int) -> None:
        self._free.append(number)
        self._schedule_preemption(number)
        self._give_out()

    def _use_store(self, number: int, ops: float, size: float, then: Callable[[int], None]) -> None:
        """Metadata operations in line with everybody's, then bytes at an equal share."""
        self._metadata_free = max(self.now, self._metadata_free) + ops / self.fleet.ops
        self.outcome.metadata_ops += ops

        def transfer(number: int) -> None:
            self._advance()
            self._active[number] = self._served + size, then
            heapq.heappush(self._ends, (self._served + size, number))
            self.outcome.bytes_moved += size
            self.outcome.peak_transfers = max(self.outcome.peak_transfers, len(self._active))
            self._expect()

        self._at(self._metadata_free, self._of_life(number, transfer))

    def _advance(self) -> None:
        """Brings what each transfer has had up to now."""
        self._served += (self.now - self._served_at) * self._rate()
        self._served_at = self.now

    def _rate(self) -> float:
        return min(self.fleet.machine_bandwidth, self.fleet.bandwidth / max(len(self._active), 1))

    def _expect(self) -> None:
        """Looks at the store again when the next transfer is due at the present rate."""
        while self._ends and self._is_void(*self._ends[0]):
            heapq.heappop(self._ends)
        self._version += 1
        if self._ends:
            version, due = self._version, self._ends[0][0] - self._served
            self._at(self.now + max(due, 0.0) / self._rate(), lambda: self._finish(version))

    def _is_void(self, end: float, number: int) -> bool:
        return number not in self._active or self._active[number][0] != end

    def _finish(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        _, number = heapq.heappop(self._ends)
        _, then = self._active.pop(number)
        self._expect()
        then(number)

    def _leave_store(self, number: int) -> None:
        if number in self._active:
            self._advance()
            del self._active[number]
            self._expect()


def simulate(fleet: Fleet) -> Outcome:
    """What comes of `fleet`."""
    return Simulation(fleet).run()
