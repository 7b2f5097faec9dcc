"""What runs share: stopping, meters, devices."""

import math
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType

import pytest
import torch
from torch import nn

from nas.errors import UserError
from nas.optimisation.bilevel import BatchResult
from nas.training.run import (
    EpochTime,
    Interrupted,
    Meter,
    StopRequest,
    autocast_for,
    choose_device,
    interruptible,
    seed_everything,
    to_device,
    use_precision,
)

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> signal.Signals:
    found: signal.Signals = request.param
    return found


@pytest.fixture
def heard(number: signal.Signals) -> Iterator[list[int]]:
    """The signals that reach the handler that was there before."""
    numbers: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        numbers.append(number)

    before = signal.signal(number, note)
    yield numbers
    signal.signal(number, before)


def test_first_signal_is_noted_and_the_second_acts_as_before(
    number: signal.Signals, heard: list[int]
) -> None:
    with StopRequest() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), number)
        assert stop.number == number
        assert heard == []
        os.kill(os.getpid(), number)
        assert heard == [number]


def test_handlers_are_back_after_the_context(number: signal.Signals, heard: list[int]) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with StopRequest() as stop:
        assert [signal.getsignal(n) for n in SIGNALS] != before
    with pytest.raises(ValueError, match="stop"), StopRequest():
        raise ValueError("stop")
    assert [signal.getsignal(n) for n in SIGNALS] == before
    os.kill(os.getpid(), number)
    assert heard == [number]
    assert stop.number == 0


def test_in_another_thread_no_signal_is_asked_for() -> None:
    """Only the main thread may: a run from a thread (a web page, a notebook's tool) goes on."""

    def entered() -> int:
        with StopRequest() as stop:
            return stop.number

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(entered).result() == 0


@pytest.fixture
def _interrupts_raise() -> Iterator[None]:
    """Python's own handler, also where the tests run in the background, which ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts_raise")
def test_second_interrupt_from_the_keyboard_ends_the_program() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_run_has_the_exit_code_that_shells_expect(name: str, code: int) -> None:
    error = Interrupted(name, "after step 7, state saved")
    assert error.exit_code == code
    assert str(error) == f"stopped by {name} after step 7, state saved"


def test_work_that_loses_nothing_ends_at_once(number: signal.Signals, heard: list[int]) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    told = f"^stopped by {number.name} while thinking$"
    with pytest.raises(Interrupted, match=told), interruptible("while thinking"):
        with suppress(Exception):  # of whoever tries something and goes on without it
            os.kill(os.getpid(), number)
            time.sleep(10)
        pytest.fail("went on")
    assert [signal.getsignal(n) for n in SIGNALS] == before and not heard


def test_work_in_another_thread_is_done_all_the_same() -> None:
    def work() -> int:
        with interruptible("while thinking"):
            return 42

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == 42


def batch(loss: float, correct: int, images: int) -> BatchResult:
    return BatchResult(torch.tensor(loss), torch.tensor(correct), images)


def test_meter_weighs_batches_by_their_images() -> None:
    meter = Meter()
    meter.add(batch(1.0, 3, 4))
    meter.add(batch(4.0, 1, 2))
    assert meter.loss == pytest.approx((4 * 1.0 + 2 * 4.0) / 6, abs=0)
    assert meter.accuracy == pytest.approx(100 * 4 / 6)
    assert meter.num_images == 6


def test_meter_does_not_lose_small_losses_in_a_large_sum() -> None:
    meter = Meter()
    meter.add(batch(2.0**24, 0, 1))
    for _ in range(8):
        meter.add(batch(0.5, 0, 1))
    assert meter.loss == (2**24 + 4) / 9


def test_empty_meter_is_nan_also_after_a_reset() -> None:
    meter = Meter()
    assert math.isnan(meter.loss) and math.isnan(meter.accuracy)
    meter.add(batch(1.0, 1, 1))
    meter.reset()
    assert math.isnan(meter.loss) and math.isnan(meter.accuracy)


@pytest.mark.parametrize("num_batches", [0, 2])
def test_meter_goes_on_from_its_state(num_batches: int) -> None:
    meter, again = Meter(), Meter()
    for _ in range(num_batches):
        meter.add(batch(1.5, 2, 4))
    again.load_state_dict(meter.state_dict(), torch.device("cpu"))
    for m in (meter, again):
        m.add(batch(0.25, 1, 2))
    assert (again.loss, again.accuracy, again.num_images) == (
        meter.loss,
        meter.accuracy,
        4 * num_batches + 2,
    )


def test_epoch_without_a_step_has_no_speed() -> None:
    time = EpochTime()
    time.stop()
    assert time.metrics() == {}
    time.add_step(32)
    time.stop()
    found = time.metrics()
    # Images a second and milliseconds a step are two views of one time.
    assert found["speed/images_per_s"] * found["speed/step_ms"] == pytest.approx(32 * 1000)


def test_what_is_left_out_of_an_epoch_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 910.0, 930.0])
    monkeypatch.setattr("nas.training.run.time.perf_counter", lambda: next(clock))
    time = EpochTime()
    time.add_step(60)
    with time.left_out():
        pass
    time.stop()
    assert time.metrics() == {"speed/images_per_s": 2.0, "speed/step_ms": 30_000.0}


def test_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cpu:0", "mps", "cu da"])
def test_unknown_device_lists_what_is_allowed(name: str) -> None:
    with pytest.raises(UserError, match="allowed are auto, cpu, cuda and cuda:<number>"):
        choose_device(name)


def machine_with(num_gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(0, monkeypatch)
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match="sees no GPU here; use device=cpu"):
            choose_device(name)


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(2, monkeypatch)
    made_current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert made_current == [torch.device("cuda:1")]
    with pytest.raises(UserError, match="there are only 2 GPUs"):
        choose_device("cuda:2")
    for name in ("cuda:", "cuda:x", "cuda:-1", "cudax", "cuda:" + "9" * 30):
        with pytest.raises(UserError, match="not a device") as caught:
            choose_device(name)
        assert "\n" not in str(caught.value)


def test_precision_of_forward_passes() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast_for(precision, torch.device("cpu"))():
            assert layer(x).dtype == dtype


def test_convolution_weights_go_channels_last_where_asked() -> None:
    for channels_last in (False, True):
        conv = to_device(nn.Conv2d(4, 8, 3), torch.device("cpu"), channels_last)
        weight = conv.get_parameter("weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_seed_replays_both_generators() -> None:
    draws = []
    for _ in range(2):
        generator = seed_everything(5)
        draws.append((torch.rand(3), torch.rand(3, generator=generator)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_algorithms_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        seed_everything(5, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize("precision", ["tf32", "float32", "bf16"])
def test_only_tf32_lets_a_gpu_round_float32_numbers(precision: str) -> None:
    use_precision(precision)
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    assert flags == (precision == "tf32",) * 2
    with autocast_for(precision, torch.device("cpu"))():
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
    use_precision("float32")
