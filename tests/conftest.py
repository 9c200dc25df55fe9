"""Settings of every test run."""

from __future__ import annotations

import ctypes

import hypothesis
import pytest

# The same examples in every run, and no clock: a shared machine may be slow.
hypothesis.settings.register_profile("classweight", derandomize=True, deadline=None)
hypothesis.settings.load_profile("classweight")


def has_cuda_device() -> bool:
    """Ask the driver, for a framework that cannot see its device must fail its tests and not skip them."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is no device."""
    if not has_cuda_device():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
