"""Single trials of `benchmarks.faults`: a short run, one kind of fault, what must come of it."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import injection
from benchmarks.injection import Fault, Outcome, Running
from nas.optimisation.bilevel import Learner
from nas.training.checkpoint import last_checkpoint
from nas.training.retrain import Retrain


@dataclass
class Subject:
    """A short run, what it finds undisturbed, and how long that takes."""

    program: str
    overrides: Sequence[str]
    scratch: Path
    seconds: float = 0.0
    num_operations: int = 0
    largest_bytes: int = 0

    @property
    def whole(self) -> Path:
        """The run that nothing happens to."""
        return self.scratch / "whole"

    def measure(self) -> None:
        """Runs it undisturbed."""
        counted = injection.counting(self.whole)
        outcome = self.run(self.whole, counted)
        if outcome.code:
            raise SystemExit(outcome.output)
        self.seconds = outcome.seconds
        self.num_operations = outcome.output.count(injection.COUNTED)
        self.largest_bytes = last_checkpoint(self.whole).stat().st_size

    def start(self, folder: Path, fault: Fault | None = None) -> Running:
        return Running(self.program, [*self.overrides, f"run_dir={folder}"], fault)

    def run(self, folder: Path, fault: Fault | None = None) -> Outcome:
        return injection.run(self.program, [*self.overrides, f"run_dir={folder}"], fault)

    def finish(self, folder: Path, fault: Fault | None = None) -> None:
        """Goes on without a fault.

        Raises:
            LostError: the run does not end, or not like the undisturbed one.
        """
        outcome = self.run(folder, fault)
        if outcome.code:
            raise LostError(f"cannot go on: {outcome.output.strip()[-300:]}")
        different = injection.difference(self.whole, folder)
        if different is not None:
            raise LostError(different)


class LostError(Exception):
    """A fault has cost something."""


Trial = Callable[[Subject, random.Random, Path], int]
"""Injects one kind of fault into runs in a folder, and checks; returns how many there were.

Raises a LostError.
"""


def killed_at_a_moment(subject: Subject, pick: random.Random, folder: Path) -> int:
    killed = 0
    for _ in range(2):
        running = subject.start(folder)
        outcome = running.wait(pick.uniform(0, subject.seconds))
        if outcome is None:
            running.send(signal.SIGKILL)
            outcome = running.wait()
            killed += outcome is not None and outcome.code == -signal.SIGKILL
    subject.finish(folder)
    return killed


def killed_between_file_operations(subject: Subject, pick: random.Random, folder: Path) -> int:
    killed = 0
    for _ in range(2):
        number = pick.randint(1, subject.num_operations)
        fault = injection.from_operation(folder, number, injection.kill_itself)
        killed += subject.run(folder, fault).code == -signal.SIGKILL
    subject.finish(folder)
    return killed


def killed_in_a_write(subject: Subject, pick: random.Random, folder: Path) -> int:
    size = random_size(subject, pick)
    outcome = subject.run(folder, injection.at_byte(size, kill=True))
    subject.finish(folder)
    return int(outcome.code == -signal.SIGXFSZ)


def stopped(number: signal.Signals) -> Trial:
    def trial(subject: Subject, pick: random.Random, folder: Path) -> int:
        running = subject.start(folder)
        outcome = running.wait(pick.uniform(0, subject.seconds))
        injected = outcome is None
        if outcome is None:
            running.send(number)
            outcome = running.wait()
        assert outcome is not None
        if outcome.has_traceback or outcome.code not in (0, 128 + number, -number):
            raise LostError(f"ended with {outcome.code}: {outcome.output[-300:]}")
        subject.finish(folder)
        return int(injected)

    return trial


def failing_from_a_file_operation(number: int) -> Trial:
    def trial(subject: Subject, pick: random.Random, folder: Path) -> int:
        moment = pick.randint(1, subject.num_operations)
        fault = injection.from_operation(folder, moment, injection.fail_with(number))
        check_said(subject.run(folder, fault))
        subject.finish(folder)
        return 1

    return trial


def failing_in_a_write(subject: Subject, pick: random.Random, folder: Path) -> int:
    outcome = subject.run(folder, injection.at_byte(random_size(subject, pick), kill=False))
    check_said(outcome)
    subject.finish(folder)
    return int(outcome.code != 0)


def random_size(subject: Subject, pick: random.Random) -> int:
    """Bytes from 1 to the largest file: half of them within the checkpoint, half in small files."""
    return int(subject.largest_bytes ** pick.choice([1, pick.random()]) * pick.random()) + 1


def check_said(outcome: Outcome, about: str = "") -> None:
    """A run that ends early has said why in one line.

    Raises:
        LostError: it has not.
    """
    last = (outcome.output.strip().splitlines() or [""])[-1]
    one_line = outcome.code == 1 and outcome.errors == [last] and about in last
    if outcome.has_traceback or "unexpected" in last or not (one_line or outcome.code == 0):
        raise LostError(f"ended with {outcome.code}: {outcome.output[-300:]}")


def damaged(subject: Subject, pick: random.Random, folder: Path) -> int:
    """The last checkpoint, in one of three ways; the one before is a step older."""
    shutil.copytree(subject.whole, folder)
    path = last_checkpoint(folder)
    content = bytearray(path.read_bytes())
    kind = pick.choice(["truncated", "flipped", "foreign"])
    if kind == "truncated":
        del content[pick.randrange(len(content)) :]
    elif kind == "flipped":
        for _ in range(20):  # one may hit what means nothing
            content[pick.randrange(len(content))] ^= 1 << pick.randrange(8)
    else:
        content = bytearray(pick.randbytes(1000))
    path.unlink()  # the other name of the file is that of another checkpoint
    path.write_bytes(content)
    outcome = subject.run(folder)
    lines = [line for line in outcome.output.splitlines() if "damaged" in line]
    if outcome.code or len(lines) != 1:
        raise LostError(f"{kind}: {outcome.output[-300:]}")
    different = injection.difference(subject.whole, folder)
    if different is not None:
        raise LostError(f"{kind}: {different}")
    return 1


def not_finite(subject: Subject, pick: random.Random, folder: Path) -> int:
    """The loss of one step is NaN."""
    owner, name = {"search": (Learner, "weights_loss"), "retrain": (Retrain, "_loss")}[
        subject.program
    ]
    real: Callable[..., Any] = getattr(owner, name)
    left = [pick.randint(1, 12)]

    def poisoned(*arguments: Any) -> Any:
        found = real(*arguments)
        left[0] -= torch.is_grad_enabled()
        if left[0] or not torch.is_grad_enabled():
            return found
        if isinstance(found, tuple):
            found[1].loss.fill_(torch.nan)
            return found
        return found * torch.nan

    outcome = subject.run(folder, lambda: setattr(owner, name, poisoned))
    if outcome.code != 1:
        raise LostError(f"ended with {outcome.code}: {outcome.output[-300:]}")
    check_said(outcome, "nan")
    subject.finish(folder)
    return 1


def a_jumping_clock(subject: Subject, pick: random.Random, folder: Path) -> int:
    """Wrong by up to a fortnight, and by another time after a kill."""

    def fault(*, kill: bool) -> Fault:
        offset, real = pick.uniform(-1e6, 1e6), time.time
        number = pick.randint(1, subject.num_operations)
        act = injection.from_operation(folder, number, injection.kill_itself)

        def install() -> None:
            time.time = lambda: real() + offset
            if kill:
                act()

        return install

    outcome = subject.run(folder, fault(kill=True))
    subject.finish(folder, fault(kill=False))
    return int(outcome.code != 0)


def two_runs(subject: Subject, pick: random.Random, folder: Path) -> int:
    """A second one while the first is at work."""
    first = subject.start(folder)
    while not (folder / ".lock").exists():
        time.sleep(0.01)
    outcome = first.wait(pick.uniform(0, subject.seconds / 10))
    if outcome is None:
        second = subject.run(folder)
        outcome = first.wait(0)  # None: it still runs, so the second was at the same time
        if outcome is None:
            check_said(second, "another run is at work")
            if second.code == 0:
                raise LostError("the second run was not refused")
            outcome = first.wait()
    assert outcome is not None
    different = injection.difference(subject.whole, folder)
    if outcome.code or different:
        raise LostError(different or outcome.output[-300:])
    return 1


def of_the_future(subject: Subject, pick: random.Random, folder: Path) -> int:
    """A checkpoint that a later release has written."""
    shutil.copytree(subject.whole, folder)
    path = last_checkpoint(folder)
    state = torch.load(path, weights_only=True)
    version = pick.randint(2, 99)
    path.unlink()
    torch.save({**state, "format_version": version}, path)
    outcome = subject.run(folder)
    check_said(outcome, f"format version {version}")
    return int(outcome.code == 1)


def a_dead_worker(subject: Subject, pick: random.Random, folder: Path) -> int:
    running = subject.start(folder)
    outcome, killed = running.wait(pick.uniform(0, subject.seconds)), False
    while outcome is None and not killed:  # there is a worker only while images are read
        killed = running.send_to_child(pick.choice([signal.SIGKILL, signal.SIGSEGV]))
        outcome = running.wait(0.01)
    outcome = outcome or running.wait()
    assert outcome is not None
    check_said(outcome, "worker" if outcome.code else "")
    subject.finish(folder)
    return int(killed)


def a_broken_image(subject: Subject, pick: random.Random, folder: Path) -> int:
    """One that is truncated while the run is at work, and mended before it goes on."""
    path = pick.choice(sorted((subject.scratch / "images" / "train").glob("*/*.png")))
    whole = path.read_bytes()
    path.write_bytes(whole[: pick.randrange(len(whole) - 12)])
    try:
        outcome = subject.run(folder)
    finally:
        path.write_bytes(whole)
    check_said(outcome, str(path) if outcome.code else "")
    subject.finish(folder)
    return int(outcome.code == 1)
