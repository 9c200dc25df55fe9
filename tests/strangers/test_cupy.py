"""CuPy, whose kernels run on the CPU, under random calls, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ..adapters.emulated_cuda import emulated_adapter, on_device
from .calls import Adapter, blocks


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    with emulated_adapter(tmp_path_factory.mktemp("cuda")) as module:
        yield Emulated(module)


class Emulated(Adapter):
    must_ask = True

    def __init__(self, module: Any) -> None:
        super().__init__("numpy", ["float32", "float64"], module)
        self.glue.loss = module.loss_and_grad

    def native(self, x: Any) -> Any:
        x = super().native(x)
        return on_device(x) if isinstance(x, np.ndarray) else x


@blocks(5_000)
def test_a_call_gives_the_right_number_or_one_clear_error(adapter: Adapter, seeds: range) -> None:
    for seed in seeds:
        adapter.check(seed)
