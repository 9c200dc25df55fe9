"""Threads for a kernel: those that PyTorch's own operators run on, as many as it is set to.

After an operator PyTorch's idle workers keep turning for a while, and hold the cores that threads of ours would need;
so these workers are given the kernel themselves, through the OpenMP library that PyTorch has loaded.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ...compute import threads


def team() -> threads.Team:
    """Return the threads that PyTorch is set to use."""
    return threads.Team(torch.get_num_threads(), _launch if _parallel() else threads.launch)


def _launch(kernel: Any, arguments: int, count: int) -> None:
    _parallel()(kernel.address, arguments, count, 0)


@lru_cache(maxsize=1)
def _parallel() -> Any:
    """Return OpenMP's call of a function by a team of threads, None where there is none to be found."""
    for library in sorted(Path(torch.__file__).parent.glob("lib/lib*omp*.so*")):
        try:
            function = ctypes.CDLL(str(library)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
        return function
    return None


def _none_after_fork() -> None:
    """Forget the workers, which do not follow a fork: OpenMP would wait for them for ever."""
    global _parallel

    def _parallel() -> Any:
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_none_after_fork)
