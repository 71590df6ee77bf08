"""Freed memory that stays with the process, instead of going back to the kernel and being asked for anew."""

import ctypes

# Of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Let the C library serve tensors from memory that others have left; whether it can be told so (glibc's can).

    By itself it maps every tensor of more than some megabytes afresh, and gives the end of its heap back as soon as
    little lies there unused. Either way the kernel has to clear the same pages again at the next forward: hundreds of
    thousands of page faults in one step of training on a CPU. What is kept is what was once in use at the same time,
    and gaps between, a few per cent of it; tensors of ``KEPT_BYTES`` and more are mapped as before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = [mallopt(option, KEPT_BYTES) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return all(told)
