"""The double-double reference of the sweeps holds against mpmath, and the sweeps are what they say they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from classweight import from_dict
from classweight.compute import cpu
from classweight.conformance import sweeps
from classweight.conformance.cases import Case
from classweight.conformance.floats import FORMATS
from classweight.conformance.oracle import evaluate

PLAN = list(sweeps.plan(4000))


def arrays(value: Any) -> Any:
    return tuple(x.values for x in value) if isinstance(value, tuple) else value.values


def oracle(case: Case) -> dict[str, Any]:
    truth = evaluate(
        from_dict(case.spec),
        case.logits.values,
        case.targets.values,
        eps=FORMATS[case.logits.dtype].eps,
        upstream=case.upstream and case.upstream.values,
        **{name: arrays(value) for name, value in case.arguments.items()},
    )
    native = case.spec["precision"] == "native"
    return {
        "loss": truth.loss,
        "gradient": truth.gradient,
        "loss_magnitude": truth.loss_magnitude,
        "gradient_magnitude": truth.gradient_magnitude if native else truth.gradient_scale,
    }


@pytest.mark.parametrize(
    "sweep",
    PLAN[: len(sweeps.KINDS) * len(sweeps.TARGETS) * len(sweeps.DTYPES)],
    ids=lambda s: f"{s.seed}-{s.kind}-{s.targets}-{s.dtype}",
)
def test_reference_is_that_of_mpmath(sweep: sweeps.Sweep) -> None:
    for case in sweeps.cases(sweep):
        expected = oracle(case)
        for name, found in (("loss", case.loss), ("gradient", case.gradient)):
            assert found is not None
            truth = expected[name].ravel()
            sizes = expected[f"{name}_magnitude"].ravel()
            with mp.workdps(60):
                pairs = zip(found.hi.ravel().tolist(), found.lo.ravel().tolist(), strict=True)
                for (hi, lo), x, size in zip(pairs, truth, sizes, strict=True):
                    assert abs(mpf(hi) + mpf(lo) - x) <= mpf(2) ** -93 * max(abs(x), size) + mpf(10) ** -120
            if found.magnitude is not None and not (name == "gradient" and sweep.targets in ("hard", "binary")):
                exact = expected[f"{name}_magnitude"].astype(np.float64)
                np.testing.assert_allclose(found.magnitude, exact, rtol=1e-14)


def test_a_sweep_is_made_again_from_its_seed() -> None:
    for sweep in PLAN[:6]:
        first, again = sweeps.cases(sweep)[0], sweeps.cases(sweep)[0]
        assert first.request() == again.request()


def test_what_is_computed_in_pieces_has_several() -> None:
    *rows, binary = sweeps.in_pieces()
    assert {(s.targets, s.dtype) for s in rows} == {
        (t, d) for t in sweeps.TARGETS if t[:6] != "binary" for d in sweeps.DTYPES
    }
    assert all(sweeps.cases(s)[0].logits.values.shape == (3, sweeps.MANY_CLASSES) for s in rows)
    assert sweeps.MANY_CLASSES > 2 * cpu.kernels().CHUNK
    assert binary.elements > cpu.SLICE
    assert sweeps.cases(binary)[0].spec["reduction"] == "mean_over_weights"
    assert [s for s in sweeps.plan(sweeps.ENOUGH) if s in (*rows, binary)] == [*rows, binary]
    assert not any(s.classes for s in PLAN)


def test_every_kind_targets_and_type_is_met() -> None:
    seen = {(s.kind, s.targets, s.dtype) for s in PLAN}
    assert len(seen) == len(sweeps.KINDS) * len(sweeps.TARGETS) * len(sweeps.DTYPES)
    large = list(sweeps.plan(10_000_000))
    assert sum(s.elements for s in large) >= 10_000_000
    drawn = [sweeps.cases(s)[0] for s in PLAN]
    assert {case.spec["reduction"] for case in drawn} >= {"none", "sum", "mean_over_weights"}
    assert any((case.targets.values == -100).any() for case in drawn)
    assert any((~case.arguments["mask"].values).any() for case in drawn)
    assert any((case.arguments["sample_weight"].values == 0).any() for case in drawn)
    assert {(case.arguments["sample_weight"].values < 0).any() for case in drawn if "-signed-" in case.id} == {True}
