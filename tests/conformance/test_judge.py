"""The judge passes what the bounds allow and nothing beyond them; and each check catches the bug it is there for."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest

from classweight.conformance.cases import VECTORS, Case, Exact, TypedArray, load
from classweight.conformance.judge import compare, judge
from classweight.conformance.worker import answer

from . import mutants_gradients, mutants_weights  # noqa: F401 - they register what is in MUTANTS
from .mutants import MUTANTS, Mutant, backend, right

CASES = list(load())
FLAGS = json.loads((VECTORS.parent / "flags.json").read_text())
CLAUSES = sorted({case.clause for case in CASES})


# Compiled for each spec, for seconds.
SAMPLED = {"torch:compiled": "confident*-index-float32-native"}
CAUGHT = [(name, flag) for name, mutant in MUTANTS.items() for flag in mutant.caught_by]


def failures(mutant: Mutant, cases: list[Case]) -> list[str]:
    made = mutant.make()
    found = []
    for case in cases:
        with np.errstate(all="ignore"):
            reply = answer(made, case.request())
        found += [text for verdict in judge(case, reply) for text in verdict.failures]
    return found


def cases_of(name: str, mutant: Mutant) -> list[Case]:
    pattern = f"*-{SAMPLED.get(mutant.backend, '*')}"
    return [case for case in CASES if name in (*case.flags, case.clause) and fnmatchcase(case.id, pattern)]


def test_the_adapter_that_mutants_are_made_of_passes() -> None:
    assert failures(Mutant(right, ()), CASES) == []


def test_the_catalogue_has_a_mutant_of_each_flag_and_clause() -> None:
    assert {flag for _, flag in CAUGHT} == {*FLAGS, *CLAUSES}
    assert len(MUTANTS) >= 45


@pytest.mark.parametrize(("name", "flag"), CAUGHT, ids=[f"{flag}-{name}" for name, flag in CAUGHT])
def test_the_cases_of_each_flag_and_clause_catch_their_mutants(name: str, flag: str) -> None:
    mutant = MUTANTS[name]
    wrong = failures(mutant, cases_of(flag, mutant))
    # By a number that is wrong or an error that is missing, not by a mutant that cannot do the call at all.
    said = re.compile(r"^\w+('s \w+)?(\[[\d, ]+\])? is [^A-Z]*(None)?, but should be ")
    assert any(said.search(text) for text in wrong), wrong[:1]


def truth(hi: Any, lo: Any = 0.0, magnitude: Any = None) -> Exact:
    hi = np.atleast_1d(np.asarray(hi, np.float64))
    return Exact(hi, np.broadcast_to(lo, hi.shape), None if magnitude is None else np.broadcast_to(magnitude, hi.shape))


def is_wrong(result: Any, expected: Exact, rule: str, dtype: str = "float32", budget: float = 0.5) -> bool:
    return bool(compare(np.atleast_1d(np.asarray(result, np.float64)), expected, dtype, rule, budget).wrong.any())


ULP = 2.0**-23


def test_rounded_allows_the_other_neighbour_only_at_a_near_tie() -> None:
    tie = 1 + ULP / 2
    for off, allowed in ((0, True), (2.0**-46, True), (-(2.0**-46), True), (2.0**-42, False), (-(2.0**-42), False)):
        for neighbour in (1.0, 1 + ULP):
            rounded = neighbour == (1.0 if off <= 0 else 1 + ULP)
            assert is_wrong(neighbour, truth(tie, off), "rounded") == (not (allowed or rounded))
        assert is_wrong(1 - ULP, truth(tie, off), "rounded")
        assert is_wrong(1 + 2 * ULP, truth(tie, off), "rounded")


def test_a_near_tie_in_the_second_half_is_seen_though_float64_cannot_hold_it() -> None:
    tie = 1 + ULP / 2
    assert not is_wrong(1 + ULP, truth(tie, 2.0**-60), "rounded")
    assert not is_wrong(1.0, truth(tie, 2.0**-60), "rounded")
    found = compare(np.array([1.0]), truth(tie, 2.0**-60), "float32", "rounded")
    assert found.rounded[0] == 1 + ULP
    assert found.near_tie[0]


def test_exact_allows_half_an_ulp_and_2_to_the_minus_48_of_what_cancels() -> None:
    x = 2.0**-40
    for off, wrong in ((0.0, False), (2.0**-48, False), (2.0**-48 * 1.001, True), (2.0**-46, True)):
        assert is_wrong(x + off, truth(x, magnitude=1.0), "exact", "float64") == wrong
    assert is_wrong(1 + ULP, truth(1.0), "exact")
    assert not is_wrong(1 + ULP, truth(1 + 0.51 * ULP), "exact")
    assert is_wrong(1.0, truth(1 + 0.51 * ULP), "exact")


def test_a_budget_counts_ulps_of_the_value_or_of_what_cancels() -> None:
    assert not is_wrong(1 + 3 * ULP, truth(1.0), "budget", budget=3)
    assert is_wrong(1 + 3 * ULP, truth(1.0), "budget", budget=2.9)
    assert is_wrong(3 * ULP, truth(1e-9), "budget", budget=3)
    assert not is_wrong(3 * ULP, truth(1e-9, magnitude=1.0), "budget", budget=3)
    assert compare(np.array([1 + 3 * ULP]), truth(1.0), "float32", "budget", 4).worst == 3


@pytest.mark.parametrize("rule", ["rounded", "exact", "budget"])
def test_no_normal_number_may_be_0_and_a_subnormal_may(rule: str) -> None:
    assert is_wrong(0.0, truth(1.2e-38), rule, budget=300)
    assert not is_wrong(0.0, truth(1.1e-38), rule)
    assert is_wrong(2e-38, truth(1.1e-38), rule)
    assert is_wrong(0.0, truth(7e-5), rule, "float16")
    assert not is_wrong(0.0, truth(6e-5), rule, "float16")


@pytest.mark.parametrize("rule", ["rounded", "exact", "budget"])
def test_infinities_and_nan_must_match(rule: str) -> None:
    special = [np.inf, -np.inf, np.nan, 1.0]
    for expected in special:
        for result in special:
            same = result == expected or (np.isnan(result) and np.isnan(expected))
            assert is_wrong(result, truth(expected), rule, budget=300) == (not same)
    assert not is_wrong(np.inf, truth(1e6), rule, "float16")
    assert is_wrong(65504.0, truth(1e6), rule, "float16")


def case() -> Case:
    return next(case for case in CASES if case.id == "targets-index-none-float32-exact")


def reply(**changes: Any) -> dict[str, Any]:
    made = answer(backend(right), case().request())
    return {**made, **changes}


def test_type_and_shape_come_first() -> None:
    (loss,) = [v for v in judge(case(), reply(loss=TypedArray.of([1, 2, 3, 4], "float64").to_wire())) if v.failures]
    assert loss.failures[0].startswith("loss's dtype is float64, but should be float32 [SoftmaxCrossEntropy(")
    (loss,) = [v for v in judge(case(), reply(loss=TypedArray.of([[1, 2, 3, 4]], "float32").to_wire())) if v.failures]
    assert loss.failures[0].startswith("loss's shape is (1, 4), but should be (4,) [")


def test_a_failure_reads_without_knowing_the_suite() -> None:
    values = TypedArray.from_json(reply()["gradient"])
    values.values[0, 2] += 4 * ULP / 8
    (verdict,) = [v for v in judge(case(), reply(gradient=values.to_wire())) if v.failures]
    (text,) = verdict.failures
    start = f"gradient[0, 2] is {values.values[0, 2]}, but should be "
    assert text.startswith(start)
    end = (
        ' ULP away; 0.5 allowed) [SoftmaxCrossEntropy(reduction="none", precision="exact") on float32[4, 3]; '
        "case targets-index-none-float32-exact]"
    )
    assert text.endswith(end)
    assert (verdict.wrong, verdict.unrounded, verdict.elements) == (1, 1, 12)


def test_many_wrong_entries_are_counted_and_the_first_named() -> None:
    (verdict,) = [
        v for v in judge(case(), reply(gradient=TypedArray.of(np.ones((4, 3)), "float32").to_wire())) if v.failures
    ]
    assert len(verdict.failures) == 4
    assert verdict.failures[-1].startswith("gradient: 9 more of 12 [")


def test_an_error_where_numbers_should_be_fails_both_columns() -> None:
    error = {"id": case().id, "error": {"type": ["ZeroDivisionError", "Exception"], "message": "boom"}}
    loss, gradient = judge(case(), error)
    assert loss.failures[0].startswith("loss is ZeroDivisionError: boom, but should be numbers [")
    assert gradient.failures[0].startswith("gradient is ZeroDivisionError")


def test_an_expected_error_has_its_type_and_says_what_it_must() -> None:
    refused = next(case for case in CASES if case.id == "targets-index-of-C")

    def verdict(types: list[str], message: str) -> tuple[str, ...]:
        (found,) = judge(refused, {"id": refused.id, "error": {"type": types, "message": message}})
        return found.failures

    assert verdict(["TargetIndexError", "ValueError", "IndexError"], "`targets` got 3 at position (1,)") == ()
    assert "should be an IndexError that says 'targets'" in verdict(["ValueError"], "`targets` got 3 at (1,)")[0]
    assert verdict(["IndexError"], "index 3 is out of bounds for axis 1")
    numbers = TypedArray.of([1.0], "float32").to_wire()
    (found,) = judge(refused, {"id": refused.id, "loss": numbers, "gradient": numbers})
    assert found.failures[0].startswith("loss is [1.0], but should be an IndexError")


def test_a_crash_fails_every_column_of_its_case() -> None:
    loss, gradient = judge(case(), {"crash": "the worker ended with status 3"})
    assert loss.failures[0].startswith("loss: the worker ended with status 3 [")
    assert gradient.failures[0].startswith("gradient: the worker ended with status 3 [")
