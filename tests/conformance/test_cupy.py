"""The suite on the adapter of CuPy, whose kernels run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from classweight.conformance.backends import Backend
from classweight.conformance.sweeps import TARGETS

from ..adapters.emulated_cuda import emulated_backend
from ..suite import CLAUSES, assert_passes, cases_of, swept


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with emulated_backend(tmp_path_factory.mktemp("cuda")) as backend:
        yield backend


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_adapter_passes_the_clauses(backend: Backend, clause: str) -> None:
    cases = cases_of(clause)
    assert_passes(backend, cases, len(cases) // 3)


@pytest.mark.parametrize("targets", TARGETS)
def test_the_adapter_passes_the_sweeps(backend: Backend, targets: str) -> None:
    cases = [case for case in swept(targets, 4_000) if case.logits.dtype == "float32"]
    assert_passes(backend, cases, len(cases))
