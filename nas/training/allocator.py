"""The C library's memory allocator, set for training."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1
_LARGEST_MMAP_OF_OLD_GLIBC = 2**25


def keep_freed_memory() -> bool:
    """Makes the process keep the memory that it frees, for its next step.

    By default glibc gives large blocks back to the system when they are freed. Training frees all
    feature maps in each step and asks for them again in the next, when the system must find and
    clear every page anew: tens of thousands of page faults a step on a CPU. The process holds its
    peak instead.

    Returns:
        Whether it could be set; False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    limits = (_LARGEST, _LARGEST_MMAP_OF_OLD_GLIBC)
    has_limit = any(mallopt(_M_MMAP_THRESHOLD, limit) for limit in limits)
    return bool(has_limit and mallopt(_M_TRIM_THRESHOLD, _LARGEST))
