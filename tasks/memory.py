"""What the C library does with freed memory."""

import ctypes
import sys
from typing import Any

import torch

# Parameters of malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
# The most that glibc takes for the second, and what both of its own reach in a program that frees large blocks, in bytes.
LARGEST_MMAP, OWN_MMAP, OWN_TRIM = 32 << 20, 32 << 20, 64 << 20


def keep_freed_memory() -> None:
    """Lets glibc keep freed tensors instead of giving each back to the system, which costs up to a quarter of a CPU training step."""
    library = _glibc()
    # Older releases take no more than 32 MB; without either, trimming alone would make it slower.
    if library and (library.mallopt(MMAP_THRESHOLD, 1 << 30) or library.mallopt(MMAP_THRESHOLD, LARGEST_MMAP)):
        library.mallopt(TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_freed_memory() -> None:
    """Lets glibc do what it does by itself, from now on, and gives back what it kept."""
    library = _glibc()
    if library:
        library.mallopt(MMAP_THRESHOLD, OWN_MMAP)
        library.mallopt(TRIM_THRESHOLD, OWN_TRIM)
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, or None where it is another one, or where GPUs hold the tensors."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return None
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:
        return None
