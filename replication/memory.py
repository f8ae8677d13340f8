"""How the process holds memory, for long work on a CPU."""

import ctypes
import platform


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for reuse rather than hand them back to the system.

    A network's step frees and asks again for hundreds of megabytes; by default each request is
    mapped and zeroed anew, which in training took more time than the arithmetic on two cores. True if set.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))
