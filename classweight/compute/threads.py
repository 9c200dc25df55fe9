"""Threads for the kernels of the CPU: as many as the user gave to NumPy, or what a framework brings."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Team(NamedTuple):
    """A number of threads, and what lets each of them call a kernel with the same arguments."""

    count: int  # type: ignore[assignment]  # a tuple has a method of this name
    launch: Callable[[Any, int, int], None]


@lru_cache(maxsize=1)
def of_numpy() -> Team:
    """Return the threads that NumPy's users set by the environment, else one a core."""
    for name in SETTINGS:
        if os.environ.get(name, "").isdecimal():
            return Team(max(1, int(os.environ[name])), launch)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Team(cores or 1, launch)


def launch(kernel: Any, arguments: int, count: int) -> None:
    """Call a compiled kernel in the caller's thread and in workers, as far as these come in time."""
    turns: list[Future[None]] = [Future() for _ in range(count - 1)]
    try:
        with suppress(RuntimeError):  # the interpreter is shutting down, or no thread can be started
            for turn in turns:
                _workers(count - 1).submit(_take, turn, kernel, arguments)
        kernel.ctypes(arguments)
    finally:
        for turn in turns:
            _end(turn)


def _take(turn: Future[None], kernel: Any, arguments: int) -> None:
    if turn.set_running_or_notify_cancel():
        kernel.ctypes(arguments)
        turn.set_result(None)


def _end(turn: Future[None]) -> None:
    """Withdraw a turn, or wait for it: whatever interrupts the caller, its memory must outlast the kernel."""
    try:
        if not turn.cancel():
            turn.result()
    except BaseException:  # of a signal's handler
        _end(turn)
        raise


@lru_cache(maxsize=1)
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "classweight")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)
