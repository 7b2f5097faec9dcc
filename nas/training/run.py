"""What searches and retrainings share: device, meters, stopping, non-finite losses."""

import math
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import Tensor, nn

from nas.distributed import ALONE, Ranks
from nas.errors import UserError
from nas.ops import guard_pointwise
from nas.optimisation.bilevel import BatchResult

PRECISIONS = ("float32", "tf32", "bf16")


class Interrupted(BaseException):  # as KeyboardInterrupt is: no error to be caught as others
    """A run that was asked to stop and has saved its state.

    Attributes:
        signal_name: `SIGINT` or `SIGTERM`.
        exit_code: 128 plus the number of the signal, as shells expect.
    """

    def __init__(self, signal_name: str, when: str) -> None:
        super().__init__(f"stopped by {signal_name} {when}")
        self.signal_name = signal_name
        self.exit_code = 128 + int(signal.Signals[signal_name])


class StopRequest:
    """Notes SIGINT and SIGTERM while in its context, so that a loop can stop between two steps.

    A second signal is not held back: it acts as if this class were not there.

    Attributes:
        number: Of the signal; 0 as long as none came.
    """

    def __init__(self) -> None:
        self.number = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python hands signals to the main thread alone, and lets no other ask
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()


class Meter:
    """Mean loss and accuracy over many batches, kept on the device until somebody asks."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all batches."""
        self._loss_sum: Tensor | None = None
        self._num_correct: Tensor | None = None
        self.num_images = 0

    def add(self, result: BatchResult) -> None:
        """Adds one batch."""
        loss, correct = result.loss.double() * result.num_images, result.num_correct
        if self._loss_sum is None or self._num_correct is None:
            self._loss_sum, self._num_correct = loss, correct
        else:
            self._loss_sum, self._num_correct = (
                self._loss_sum + loss,
                self._num_correct + correct,
            )
        self.num_images += result.num_images

    @property
    def loss(self) -> float:
        """Mean loss an image; NaN without any. Waits for the device."""
        return math.nan if self._loss_sum is None else self._loss_sum.item() / self.num_images

    @property
    def accuracy(self) -> float:
        """Correct images in percent; NaN without any. Waits for the device."""
        if self._num_correct is None:
            return math.nan
        return 100.0 * self._num_correct.item() / self.num_images

    def of_all(self, ranks: Ranks) -> "Meter":
        """One of the batches of all ranks. Waits for the device."""
        if ranks.size == 1:
            return self
        whole = Meter()
        own = (0.0, 0.0)
        if self._loss_sum is not None and self._num_correct is not None:
            own = self._loss_sum.item(), self._num_correct.item()
        loss_sum, num_correct, num_images = ranks.sums(*own, self.num_images)
        if num_images:
            whole._loss_sum = torch.tensor(loss_sum, dtype=torch.float64)
            whole._num_correct = torch.tensor(round(num_correct))
            whole.num_images = round(num_images)
        return whole

    def state_dict(self) -> dict[str, object]:
        """The sums, for a checkpoint."""
        return {
            "loss_sum": None if self._loss_sum is None else self._loss_sum.cpu(),
            "num_correct": None if self._num_correct is None else self._num_correct.cpu(),
            "num_images": self.num_images,
        }

    def load_state_dict(
        self, state: dict[str, object], device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        """Puts the sums, which are those of all ranks, back on `device` of the first."""
        if not ranks.is_first:
            self.reset()
            return
        loss_sum, correct = state["loss_sum"], state["num_correct"]
        self._loss_sum = loss_sum.to(device) if isinstance(loss_sum, Tensor) else None
        self._num_correct = correct.to(device) if isinstance(correct, Tensor) else None
        self.num_images = int(state["num_images"])  # type: ignore[call-overload]


@contextmanager
def interruptible(when: str) -> Iterator[None]:
    """SIGINT and SIGTERM end what is done in this context at once: nothing is lost by that.

    Args:
        when: What the user is told: "while deriving, the search is saved".

    Raises:
        Interrupted: one of them came.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name, when)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
        return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class EpochTime:
    """How long the training steps of an epoch took, and for how many images."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds = 0.0
        self.num_steps = 0
        self.num_images = 0

    def add_step(self, num_images: int) -> None:
        """Counts one step on `num_images` images."""
        self.num_steps += 1
        self.num_images += num_images

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is done meanwhile does not count; what waits on a GPU before it does."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def stop(self) -> None:
        """Ends the measurement."""
        self._seconds = time.perf_counter() - self._start

    def metrics(self) -> dict[str, float]:
        """Speed metrics; none where a resumed epoch had no step left."""
        if self.num_steps == 0:
            return {}
        return {
            "speed/images_per_s": self.num_images / self._seconds,
            "speed/step_ms": 1000.0 * self._seconds / self.num_steps,
        }


def use_threads(num_threads: int | None) -> None:
    """How many CPU threads share an operation; None leaves it to PyTorch (all cores).

    Threads that wait for each other stand still as soon as one of their cores is busy elsewhere,
    and operations of some microseconds gain little from a second one.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def use_precision(precision: str) -> None:
    """Says how a GPU multiplies float32 numbers; nothing changes on a CPU.

    `tf32` lets it round the factors of convolutions and matrix products to 10 bits of mantissa,
    which its tensor cores take; sums stay float32. Otherwise they are taken as they are. PyTorch's
    own default is one for convolutions and the other for matrix products.
    """
    rounded = precision == "tf32"
    with warnings.catch_warnings():
        # Some releases announce other names for these two, which in turn not all of PyTorch knows.
        warnings.filterwarnings("ignore", "Please use the new API")
        torch.backends.cudnn.allow_tf32 = rounded
        torch.backends.cuda.matmul.allow_tf32 = rounded


def num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device called `name`: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:<n>`.

    Of several processes on a machine each takes a GPU of its own.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise UserError(f"device is '{name}': allowed are auto, cpu, cuda and cuda:<number>")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device is '{name}', but PyTorch sees no GPU here; use device=cpu or auto")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device is '{name}': not a device") from None
    if device.type == "cuda" and ranks.local_rank is not None:
        if device.index is not None:
            raise UserError(f"device is '{name}': several processes take one each, use device=cuda")
        device = torch.device("cuda", ranks.local_rank)
        name = f"{name}, for the process {ranks.local_rank} of this machine"
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"device is '{name}', but there are only {torch.cuda.device_count()} GPUs")
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The device's own name for itself, as far as a processor tells it (Linux does)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def autocast_for(
    precision: str, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """The context of forward passes: bf16 autocast, or nothing for float32 and tf32."""
    if precision != "bf16":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def to_device(module: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """Moves `module`, with convolution weights in channels-last memory if asked."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    moved: nn.Module = module.to(device, memory_format=layout)  # type: ignore[call-overload]
    return guard_pointwise(moved) if channels_last else moved


def seed_everything(seed: int, *, deterministic: bool = False) -> torch.Generator:
    """Seeds torch's global generators and returns the sampler's own, on the host.

    Args:
        seed: Seed of the run.
        deterministic: Refuse algorithms whose results vary from run to run (on a GPU).
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        # cuBLAS reads it when it starts; without it its results may vary.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.Generator().manual_seed(seed)
