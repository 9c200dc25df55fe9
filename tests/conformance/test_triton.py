"""The suite on Triton's kernels, which its interpreter runs on the CPU."""

from __future__ import annotations

import os

import pytest

from classweight.conformance.sweeps import TARGETS

from ..suite import CLAUSES, assert_passes, cases_of, swept

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a process of its own with TRITON_INTERPRET=1", allow_module_level=True)

from ..interpreted import backend

# Of which kernels compute less than three quarters: they take logits.
PARTS = {"inputs": 3}


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_kernels_pass_the_clauses(clause: str) -> None:
    cases = cases_of(clause)
    assert_passes(backend(), cases, PARTS.get(clause, len(cases) * 3 // 4))


@pytest.mark.parametrize("targets", TARGETS)
def test_the_kernels_pass_the_sweeps(targets: str) -> None:
    cases = swept(targets, 40_000)
    assert_passes(backend(), cases, len(cases))
