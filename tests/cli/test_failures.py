"""What is said of an error that nothing has foreseen as a user's mistake."""

import pytest
import torch

from conf.failures import explain

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "data.num_workers",
        ),
        (
            RuntimeError("Caught X in DataLoader worker process 0.\n\nOSError: gone"),
            "OSError: gone",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "lower batch_size"),
        (RuntimeError("you tried to allocate memory: 9 bytes"), "lower batch_size"),
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError"),
    ],
)
def test_an_unforeseen_error_is_one_line_with_the_remedy_where_there_is_one(
    error: Exception, words: str
) -> None:
    line = explain(error)
    assert words in line and "\n" not in line
