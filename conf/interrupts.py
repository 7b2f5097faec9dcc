"""Imported first of all: Ctrl-C while the imports run ends a program without a traceback."""

import signal
import sys
from pathlib import Path

PROGRAMS = ("search", "retrain", "profile_space", "nas-search", "nas-retrain", "nas-profile")


def _exchange(handler: object, other: object) -> None:
    if signal.getsignal(signal.SIGINT) == handler:  # else it is ignored, or somebody else's
        signal.signal(signal.SIGINT, other)  # type: ignore[arg-type]


def take_interrupts() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, as usual."""
    _exchange(signal.SIG_DFL, signal.default_int_handler)


if Path(sys.argv[0]).stem in PROGRAMS:
    _exchange(signal.default_int_handler, signal.SIG_DFL)
