"""Progress on a terminal and in a file, with a clock that the tests set."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from nas.monitor.console import Progress, summary_table


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What is to be seen: a carriage return goes back to the start of the line."""
        lines = self.getvalue().split("\n")
        return [re.sub(r"\x1b\[K", "", line.rsplit("\r", 1)[-1]) for line in lines]


def test_terminal_shows_one_line_that_updates_itself() -> None:
    clock, terminal = Clock(), Terminal()
    progress = Progress(200, stream=terminal, clock=clock)
    for step in range(1, 101):
        clock.now += 0.5
        progress.update(step, loss=1.23456, accuracy=61.5)
    (line,) = terminal.screen()
    assert (
        line
        == (
            " 50%  ██████████░░░░░░░░░░  100/200  2 step/s  ETA 0:00:50  loss 1.235  accuracy 61.5"
        )[:79]
    )


def test_what_ends_before_its_limit_ends_at_all_of_it() -> None:
    """A local search that finds no better neighbour is done, not cut off."""
    clock, terminal = Clock(), Terminal()
    with Progress(500, stream=terminal, clock=clock, unit="genotype") as progress:
        clock.now += 10
        progress.advance(154)
        progress.end_here()
    last = terminal.screen()[0]
    assert last.startswith("100%") and "154/154" in last and "ETA" not in last


def test_line_stays_above_the_bar() -> None:
    clock, terminal = Clock(), Terminal()
    with Progress(4, stream=terminal, clock=clock) as progress:
        clock.now += 1
        progress.update(1, loss=2.0)
        progress.line("epoch 1 done")
        clock.now += 1
        progress.update(2)
    stayed, bar, after = terminal.screen()
    assert stayed == "epoch 1 done"
    assert bar.startswith(" 50%") and bar.endswith("loss 2")
    assert after == ""


def test_terminal_is_not_flooded() -> None:
    clock, terminal = Clock(), Terminal()
    progress = Progress(10_000, stream=terminal, clock=clock)
    for step in range(1, 10_001):
        clock.now += 0.001
        progress.update(step)
    assert terminal.getvalue().count("\r") < 30


def test_terminal_that_cannot_write_blocks_gets_plain_characters() -> None:
    clock, terminal = Clock(), Terminal()
    terminal.encoding = "ascii"
    with Progress(4, stream=terminal, clock=clock) as progress:
        clock.now += 1
        progress.update(2)
    assert "##########----------" in terminal.screen()[0]
    assert terminal.getvalue().isascii()


def test_file_gets_a_plain_line_an_interval() -> None:
    clock, file = Clock(), io.StringIO()
    with Progress(100, stream=file, clock=clock, interval_s=30) as progress:
        for step in range(1, 101):
            clock.now += 1
            progress.update(step, loss=0.5)
    lines = file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["30/100", "60/100", "90/100", "100/100"]
    assert lines[0] == " 30%   30/100  1 step/s  ETA 0:01:10  loss 0.5"
    assert not re.search(r"[\r\x1b]", file.getvalue())


def test_figures_are_asked_for_only_when_they_are_shown() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(100, stream=file, clock=clock, interval_s=30)
    asked = []
    for step in range(1, 66):
        clock.now += 1
        if progress.is_due(step):
            asked.append(step)
            progress.update(step, loss=0.5)
    assert asked == [30, 60]
    assert file.getvalue().splitlines()[-1] == " 60%   60/100  1 step/s  ETA 0:00:40  loss 0.5"


def test_rate_after_resume_is_that_of_this_process() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(1000, start_step=900, stream=file, clock=clock, interval_s=10)
    for step in range(901, 911):
        clock.now += 1
        progress.update(step)
    assert file.getvalue() == " 91%   910/1000  1 step/s  ETA 0:01:30\n"


def test_rate_follows_a_change_of_speed() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(10_000, stream=file, clock=clock, interval_s=100)
    for step in range(1, 201):
        clock.now += 1.0 if step <= 100 else 0.5
        progress.update(step)
    progress.close()
    assert "2 step/s" in file.getvalue().splitlines()[-1]


def test_slow_steps_are_given_in_seconds() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(100, stream=file, clock=clock, unit="epoch")
    for step in range(1, 4):
        clock.now += 90
        progress.update(step)
    assert file.getvalue().splitlines()[-1] == "  3%    3/100  90 s/epoch  ETA 2:25:30"


def test_closing_twice_and_without_steps_is_harmless() -> None:
    file = io.StringIO()
    progress = Progress(0, stream=file, clock=Clock())
    progress.close()
    progress.close()
    assert file.getvalue() == "100%  0/0  ETA ?\n"


def test_table_aligns_its_values() -> None:
    table = summary_table([("genotype", "|none~0|"), ("time", "0:01:00")], "Search done")
    assert table.splitlines() == [
        "Search done",
        "------------------",
        "genotype  |none~0|",
        "time      0:01:00",
        "------------------",
    ]


def test_a_dumb_terminal_and_no_color_get_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    clock, terminal = Clock(), Terminal()
    with Progress(4, stream=terminal, clock=clock) as progress:
        progress.update(2)
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.getvalue()), "no colours anyway"
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    with Progress(4, stream=dumb, clock=clock) as progress:
        progress.line("epoch 1 done")
        progress.update(2)
    assert not re.search(r"[\r\x1b]", dumb.getvalue()) and "epoch 1 done\n" in dumb.getvalue()


def test_a_log_gets_fewer_lines_as_the_run_gets_longer() -> None:
    clock, file = Clock(), io.StringIO()
    progress = Progress(10**7, stream=file, clock=clock, interval_s=30)
    for step in range(10, 7 * 24 * 3600, 10):  # a week
        clock.now += 10
        progress.update(step)
    assert len(file.getvalue().splitlines()) < 400


def test_a_notebook_gets_one_output_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            shown[-1] = content["text/plain"]

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append(content["text/plain"])
        return Handle()

    class OutStream(io.StringIO):
        """As ipykernel's, which is no terminal."""

    OutStream.__module__ = "ipykernel.iostream"
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    clock, stream = Clock(), OutStream()
    with Progress(100, stream=stream, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 1
            progress.update(step, loss=0.5)
            if step % 5 == 0:
                progress.line(f"epoch {step // 5} done")
    assert len(shown) == 1 and stream.getvalue() == ""
    lines = shown[0].splitlines()
    assert lines[0] == "... (8 lines before)" and lines[1] == "epoch 9 done"
    assert lines[-2] == "epoch 20 done" and lines[-1].startswith("100%") and len(lines) == 14
    assert lines[-1].endswith("1 step/s  in 0:01:40")
