"""Compiled loops on the threads of torch's own operators, for CPUs.

Threads of a pool of their own would wait for those of torch, which keep the cores busy for milliseconds after every operator.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

# Below so many values torch's own operators take less time.
LEAST_SIZE = 1 << 18
# In how many shares threads take the work.
SHARES = 8, 64
carray: Any = numba.carray  # type: ignore[attr-defined]
_STORED = {torch.float32: np.float32, torch.bfloat16: np.uint16}
_INT16, _INT32, _FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function at its first call, and keeps the outcome on disk where there is a folder to write to."""
    return _kept(lambda cache: numba.njit(cache=cache, nogil=True, error_model="numpy")(function))


def loop(function: Callable[[Any], None]) -> Any:
    """Compiles a function of a pointer, for `on_all_threads`; kept on disk like those of `compiled`."""
    return _kept(lambda cache: numba.cfunc(types.void(types.voidptr), cache=cache)(function))


def _kept(compile: Callable[[bool], Any]) -> Any:
    try:
        return compile(True)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return compile(False)


@lru_cache(maxsize=1)
def _parallel() -> Any:
    """The entry of OpenMP by which torch's operators start their threads, or None where torch was built with another kind of threads."""
    try:
        entry = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    entry.argtypes, entry.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return entry


def type_from_loops(input: Tensor) -> torch.dtype | None:
    """In which type loops return what they make of such (B, C, H, W) features; None where torch's own operators have to do it.

    Loops are for large float32 and bfloat16 features in channels_last order on the CPU. Under autocast they return bfloat16, else the type
    that they were given.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
    takes = (
        type(input) is Tensor
        and input.dtype in _STORED
        and dtype in _STORED
        and input.numel() >= LEAST_SIZE
        and input.is_contiguous(memory_format=torch.channels_last)
        and are_there(input)
    )
    return dtype if takes else None


def are_there(input: Tensor) -> bool:
    """Whether loops can run on a tensor here: on a CPU, with torch's threads, and not while a compiler or exporter of torch looks on.

    They take memory as it is, which those cannot follow.
    """
    looked_on = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return input.device.type == "cpu" and not looked_on and _parallel() is not None


def shares_of(lines: int, least: int) -> int:
    """In how many shares threads take so many lines, each of about `least` or more.

    It is the same for all numbers of threads, and with it the sums.
    """
    fewest, most = SHARES
    return min(max(lines // least, fewest), most)


def stored(dtype: torch.dtype) -> Any:
    """How numba names a type of features; it does not know bfloat16."""
    return _STORED[dtype]


def on_all_threads(loop: Any, task: NDArray[np.int64]) -> None:
    """Calls a `loop` with the address of its task on each of torch's threads; they share out the work by `take` of the task's first number.

    Args:
        loop: from `loop`.
        task: numbers and addresses of memory, which the caller keeps alive; the first number is 0.
    """
    _parallel()(loop.address, task.ctypes.data, torch.get_num_threads(), 0)


def operator(describe: Callable[..., Any]) -> Any:
    """Makes what a function describes, a signature and a generator of instructions, callable in loops."""
    return intrinsic(describe)


@operator
def pointer(typing: Any, address: Any) -> Any:
    """An address, as what `numba.carray` takes."""
    return types.voidptr(types.int64), lambda context, builder, signature, args: builder.inttoptr(args[0], ir.IntType(8).as_pointer())


@operator
def take(typing: Any, address: Any) -> Any:
    """The number at an address, which grows by one: no two threads are given the same."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(types.int64), generate


@operator
def number(typing: Any, stored: Any) -> Any:
    """A float32, or the bits of a bfloat16 (uint16), as float32."""
    if stored == types.float32:
        return types.float32(stored), lambda context, builder, signature, args: args[0]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(args[0], _INT32), ir.Constant(_INT32, 16)), _FLOAT)

    return types.float32(types.uint16), generate


@operator
def rounded(typing: Any, value: Any, like: Any) -> Any:
    """A float32 as it is stored beside another: as it is, or as the bits of the nearest bfloat16 (uint16), the even one of two."""
    if like == types.float32:
        return types.float32(types.float32, like), lambda context, builder, signature, args: args[0]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _INT32)
        is_odd = builder.and_(builder.lshr(bits, ir.Constant(_INT32, 16)), ir.Constant(_INT32, 1))
        up = builder.add(bits, builder.add(is_odd, ir.Constant(_INT32, 0x7FFF)))
        return builder.trunc(builder.lshr(up, ir.Constant(_INT32, 16)), _INT16)

    return types.uint16(types.float32, types.uint16), generate


@operator
def power_of_two(typing: Any, exponent: Any) -> Any:
    """2 to a whole float32 of -126 to 127."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        biased = builder.add(builder.fptosi(args[0], _INT32), ir.Constant(_INT32, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT32, 23)), _FLOAT)

    return types.float32(types.float32), generate
