"""The vectors are up to date, keep to their schema, and cover what they say they cover."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from classweight.conformance import generate
from classweight.conformance.cases import VECTORS, Case, load
from classweight.conformance.drafts import T, Z, complete, draft
from classweight.conformance.floats import FORMATS
from classweight.spec import SoftmaxCrossEntropy

FILES = {path.stem: json.loads(path.read_text()) for path in VECTORS.glob("*.json")}
SCHEMA = json.loads((VECTORS.parent / "schema.json").read_text())
FLAGS = json.loads((VECTORS.parent / "flags.json").read_text())
CASES = list(load())


@pytest.mark.parametrize("clause", FILES)
def test_a_file_keeps_to_the_schema_and_is_its_clause(clause: str) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(FILES[clause])
    assert {case["clause"] for case in FILES[clause]["cases"]} == {clause, FILES[clause]["clause"]}
    assert all(case["id"].startswith(f"{clause}-") for case in FILES[clause]["cases"])


def test_the_schema_refuses_what_is_wrong() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    good = FILES["targets"]["cases"][0]

    def is_valid(**changes: Any) -> bool:
        return validator.is_valid({"clause": "targets", "cases": [{**good, **changes}]})

    assert is_valid()
    assert not is_valid(unknown=1)
    assert not is_valid(id="with a space")
    assert not is_valid(tier="sometimes")
    assert not is_valid(budget={"loss": 3, "gradient": 301})
    assert not is_valid(logits={"dtype": "float32", "shape": [1], "data": [0.5]})
    assert not is_valid(expected={"error": {"type": "SyntaxError", "contains": ["x"]}})
    assert not is_valid(arguments={"weights": good["logits"]})


def test_ids_are_unique_and_flags_explained() -> None:
    assert max(Counter(case.id for case in CASES).values()) == 1
    assert {flag for case in CASES for flag in case.flags} == set(FLAGS)


def test_every_type_precision_rule_and_kind_of_loss_is_there() -> None:
    assert len(CASES) >= 300
    seen = {(case.spec["loss"], case.logits.dtype, case.spec.get("precision", "native")) for case in CASES}
    for dtype in FORMATS:
        for loss in ("SoftmaxCrossEntropy", "SigmoidCrossEntropy"):
            assert {(loss, dtype, "native"), (loss, dtype, "exact")} <= seen
    assert {case.rule for case in CASES} == {"rounded", "exact", "budget"}
    assert {case.error.type for case in CASES if case.error} == {"ValueError", "IndexError", "TypeError"}


def test_exact_precision_is_judged_by_its_bounds_and_not_by_a_budget() -> None:
    for case in CASES:
        exact = case.spec.get("precision") == "exact" and case.logits.dtype != "float64"
        if not case.error:
            assert (case.rule != "budget") == exact, case.id


def test_a_budget_of_a_half_type_is_about_its_last_rounding() -> None:
    def budgets(dtype: str) -> list[float]:
        return [max(case.budget) for case in CASES if case.logits.dtype == dtype and case.rule == "budget"]

    assert max(budgets("float16")) < 0.52
    assert max(budgets("bfloat16")) < 0.51
    assert max(budgets("float32")) < 100
    assert max(budgets("float64")) <= 300


def test_arrays_of_float64_hold_what_a_type_can_hold() -> None:
    def is_held(case: Case) -> bool:
        f = FORMATS[case.logits.dtype]
        finite = case.logits.values[abs(case.logits.values) < float("inf")]
        return all(abs(x) <= f.largest for x in finite.ravel())

    assert all(is_held(case) for case in CASES if case.logits.dtype in FORMATS)


def test_the_files_are_what_the_generator_makes() -> None:
    assert generate.main(["--check"]) == 0


def test_check_names_a_file_that_was_edited_is_missing_or_too_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["--folder", str(tmp_path)]) == 0
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 0
    (tmp_path / "mask.json").write_text((tmp_path / "mask.json").read_text().replace("0x1p+1", "0x1p+2", 1))
    (tmp_path / "axis.json").unlink()
    (tmp_path / "old.json").write_text("{}")
    capsys.readouterr()
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 1
    assert re.findall(r"^(\w+).json is not up to date", capsys.readouterr().err, re.MULTILINE) == [
        "axis",
        "mask",
        "old",
    ]


def test_a_draft_that_contradicts_the_definition_is_refused() -> None:
    for error, targets in (
        (("ValueError", "targets"), T),
        (None, [0, 1, 2, 3]),
        (("ValueError", "mask"), [0, 1, 2, 3]),
    ):
        with pytest.raises(AssertionError, match="the draft expects"):
            complete("targets", draft("x", SoftmaxCrossEntropy(), Z, targets, error=error))
    with pytest.raises(AssertionError, match=r"published 0\.300"):
        complete("targets", draft("x", SoftmaxCrossEntropy(), Z, T, published={"loss": "0.300"}))
    with pytest.raises(AssertionError, match="catches nothing"):
        complete("targets", draft("x", SoftmaxCrossEntropy(), [[0.0, 500, 2]], [0], "float64"))
