"""Imported first of all by the programs, since what they import next takes seconds.

Ctrl-C meanwhile ends a program without a traceback; `--help`, `--list` and the questions of a shell
are answered right here.
"""

import signal
import sys
from pathlib import Path

from conf.questions import answer

PROGRAMS = {
    **{name: name for name in ("search", "retrain", "export", "profile_space")},
    "nas-search": "search",
    "nas-retrain": "retrain",
    "nas-export": "export",
    "nas-profile": "profile_space",
}
"""What a process may be started as, and which program that is."""


def _exchange(handler: object, other: object) -> None:
    if signal.getsignal(signal.SIGINT) == handler:  # else it is ignored, or somebody else's
        signal.signal(signal.SIGINT, other)  # type: ignore[arg-type]


def take_interrupts() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, as usual."""
    _exchange(signal.SIG_DFL, signal.default_int_handler)


_program = PROGRAMS.get(Path(sys.argv[0]).stem)
if _program is not None:
    _exchange(signal.default_int_handler, signal.SIG_DFL)
    answer(_program, sys.argv[1:])
