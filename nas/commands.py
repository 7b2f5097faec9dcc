"""What a user types to start a program of this package."""

import sys
from pathlib import Path


def command_for(program: str) -> str:
    """`python retrain.py`; `nas-retrain` where the program that runs was installed.

    Args:
        program: `search`, `retrain` or `export`.
    """
    is_installed = Path(sys.argv[0]).name.startswith("nas-")
    return f"nas-{program}" if is_installed else f"python {program}.py"
