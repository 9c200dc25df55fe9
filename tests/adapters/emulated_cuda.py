"""CuPy's kernels on the CPU: CUDA's words defined away, a thread of Python for a thread of CUDA.

ctypes releases the interpreter's lock, so the threads of a block meet at real barriers.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classweight.conformance.backends import Backend, NotRun, NumPy

SHIM = r"""
#include <barrier>
#include <cmath>
#define __device__
#define __global__
#define __shared__ static
using std::exp, std::log, std::log1p;
struct Place { int x; };
static thread_local Place blockIdx, threadIdx;
static const Place blockDim = {LANES};
static std::barrier together(LANES);
static void __syncthreads() { together.arrive_and_wait(); }
// Static, for otherwise every library that is loaded would share the slots of the first.
template <class V> static V __shfl_xor_sync(unsigned, V x, int step) {
    static V slots[LANES];
    slots[threadIdx.x] = x;
    together.arrive_and_wait();
    V other = slots[threadIdx.x ^ step];
    together.arrive_and_wait();
    return other;
}
extern "C" void be(int block, int thread) { blockIdx.x = block, threadIdx.x = thread; }
"""


class Array(np.ndarray):  # type: ignore[type-arg]
    """An array of the host that has a device to enter."""

    device = contextlib.nullcontext()


class RawModule:
    """CuPy's RawModule over a host compiler. A block is one row here, whatever the grid."""

    folder: Path

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        defines = [option for option in options if option.startswith("-D")]
        self.lanes = int(defines[-1].partition("LANES=")[2])
        stem = self.folder / hashlib.sha256(repr(defines).encode()).hexdigest()[:16]
        stem.with_suffix(".cpp").write_text(SHIM + code)
        command = ["c++", "-std=c++20", "-O1", "-pthread", "-shared", "-fPIC", "-ffp-contract=off", *defines]
        subprocess.run([*command, "-o", f"{stem}.so", f"{stem}.cpp"], check=True)
        self.library = ctypes.CDLL(f"{stem}.so")

    def get_function(self, name: str) -> Callable[..., None]:
        def launch(grid: Any, block: Any, arguments: Any) -> None:
            threads, wanted = grid[0] * block[0], int(arguments[5]) * self.lanes
            assert threads - block[0] < wanted <= threads
            native = [_native(x) for x in arguments]
            for row in range(int(arguments[5])):
                threads = [threading.Thread(target=self._run, args=(name, row, t, native)) for t in range(self.lanes)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

        return launch

    def _run(self, name: str, row: int, thread: int, arguments: Any) -> None:
        self.library.be(row, thread)
        self.library[name](*arguments)


def _native(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        assert x.flags.c_contiguous
        return ctypes.c_void_p(x.ctypes.data)
    return np.ctypeslib.as_ctypes_type(x.dtype)(x.item())


def emulated_cupy(folder: Path) -> types.ModuleType:
    """Return a module to import as CuPy: NumPy, with arrays that have a device and kernels that run on the host."""
    module = types.ModuleType("cupy")
    module.__dict__.update({name: getattr(np, name) for name in np.__all__ if hasattr(np, name)})
    module.__dict__.update(ndarray=Array, RawModule=type("RawModule", (RawModule,), {"folder": folder}))
    return module


@contextlib.contextmanager
def emulated_adapter(folder: Path) -> Iterator[Any]:
    """Yield the adapter over an emulated CuPy, where there is a compiler."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    name = "classweight.adapters.cupy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", emulated_cupy(folder))
        patch.delitem(sys.modules, name, raising=False)
        with np.errstate(all="ignore"):
            yield importlib.import_module(name)
        patch.delitem(sys.modules, name)


def on_device(x: Any) -> Any:
    """Return an array of the emulated device."""
    return np.asarray(x).view(Array)


class Emulated(NumPy):
    """Arrays of the emulated device, and the adapter over it."""

    def __init__(self, adapter: Any) -> None:
        self.loss = adapter.loss_and_grad

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        if dtype in ("float16", "bfloat16"):
            raise NotRun("half types are CUDA's own in the kernels")
        return on_device(super().decode(data, dtype, shape))

    def lay(self, x: Any, layout: str) -> Any:
        return on_device(super().lay(x, layout))

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Any:
        return super().run(spec, logits, targets, {"validate": True, **arguments}, upstream, again)


@contextlib.contextmanager
def emulated_backend(folder: Path) -> Iterator[Backend]:
    """Yield the emulated adapter as a backend of the suite."""
    with emulated_adapter(folder) as adapter:
        yield Backend("cupy:emulated", Emulated(adapter), {})
