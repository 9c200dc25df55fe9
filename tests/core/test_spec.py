"""A spec validates on construction, compares by value, and travels as JSON."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, from_dict

from ..calls import random_call

SPECS = [
    SoftmaxCrossEntropy(),
    SoftmaxCrossEntropy(class_weight=[1, 2.5, 0], label_smoothing=0.1, ignore_index=-100, axis=-1),
    SoftmaxCrossEntropy(class_weight={2: 1, 0: 2.5}, missing_class_weight=1, weighting="label", reduction="none"),
    SoftmaxCrossEntropy(class_weight={}, missing_class_weight=1, precision="exact", zero_denominator="nan"),
    SoftmaxCrossEntropy(inputs="probs", clip="dtype", renormalize="after", weighting="expected"),
    SigmoidCrossEntropy(),
    SigmoidCrossEntropy(class_weight=(1, [[2, 3.5]]), ignore_label=-1, average_outputs=True, inputs="probs", clip=1e-7),
]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_spec_survives_json_pickle_and_its_own_repr(spec: Any) -> None:
    copies = [
        from_dict(json.loads(json.dumps(spec.to_dict()))),
        type(spec).from_dict(spec.to_dict()),
        pickle.loads(pickle.dumps(spec)),
        dataclasses.replace(spec),
        eval(repr(spec)),
    ]
    for copy in copies:
        assert copy == spec
        assert hash(copy) == hash(spec)
        assert copy.fingerprint() == spec.fingerprint()


def test_every_two_specs_differ() -> None:
    assert len(set(SPECS)) == len({spec.fingerprint() for spec in SPECS}) == len(SPECS)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    code = f"from classweight import *; print({SPECS[2]!r}.fingerprint())"
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert output.stdout.strip() == SPECS[2].fingerprint()


def test_weights_are_held_as_float64_whatever_they_came_as() -> None:
    weight = np.array([0.1, 0.2], np.float32)
    spec = SoftmaxCrossEntropy(class_weight=weight)
    weight[:] = 7
    assert spec.class_weight == (float(np.float32(0.1)), float(np.float32(0.2)))
    assert SoftmaxCrossEntropy(class_weight=range(1, 3)) == SoftmaxCrossEntropy(class_weight=np.array([1, 2]))


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SoftmaxCrossEntropy().axis = 2  # type: ignore[misc]


def test_a_mapping_names_every_class_or_says_what_the_others_weigh() -> None:
    mapping = {0: 2.0, 2: 3.0}
    with pytest.raises(ValueError, match=r"`class_weight` must name each of the 3 classes.*no weight for class 1"):
        SoftmaxCrossEntropy(class_weight=mapping).class_weight_values(3)
    with pytest.raises(ValueError, match="`class_weight` must have keys from 0 to 1; got key 2"):
        SoftmaxCrossEntropy(class_weight=mapping, missing_class_weight=1).class_weight_values(2)
    filled = SoftmaxCrossEntropy(class_weight=mapping, missing_class_weight=0.5)
    assert filled.class_weight_values(4) == (2.0, 0.5, 3.0, 0.5)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"label_smoothing": 1.5}, ValueError, "`label_smoothing` must be a number from 0 to 1; got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, "`label_smoothing` must be .*; got -0.1"),
        ({"label_smoothing": float("nan")}, ValueError, "`label_smoothing` must be .*; got nan"),
        ({"label_smoothing": "0.1"}, TypeError, "`label_smoothing` must be .*; got '0.1'"),
        ({"label_smoothing": True}, TypeError, "`label_smoothing` must be .*; got True"),
        ({"reduction": "mean"}, ValueError, "`reduction` must be one of 'none', 'sum', .*; got 'mean'"),
        ({"zero_denominator": 0}, ValueError, "`zero_denominator` must be one of 'zero', 'nan'; got 0"),
        ({"weighting": "inside"}, ValueError, "`weighting` must be one of 'term', 'label', 'expected'; got 'inside'"),
        ({"ignore_index": 1.0}, TypeError, "`ignore_index` must be an int or None; got 1.0"),
        ({"axis": None}, TypeError, "`axis` must be an int; got None"),
        ({"inputs": "logit"}, ValueError, "`inputs` must be one of .*; got 'logit'"),
        ({"precision": "double"}, ValueError, "`precision` must be one of 'native', 'exact'; got 'double'"),
        ({"clip": 1e-7}, ValueError, "`clip` must be None unless inputs='probs'; got 1e-07"),
        ({"clip": 0.5, "inputs": "probs"}, ValueError, "`clip` must be .*; got 0.5"),
        ({"renormalize": "after"}, ValueError, "`renormalize` must be None unless inputs='probs'; got 'after'"),
        ({"renormalize": "both", "inputs": "probs"}, ValueError, "`renormalize` must be one of .*; got 'both'"),
        (
            {"class_weight": [1, -np.inf]},
            ValueError,
            r"`class_weight` must be a finite number; got -inf at index \(1,\)",
        ),
        ({"class_weight": [1, np.nan]}, ValueError, r"`class_weight` must be a finite number; got nan at index \(1,\)"),
        ({"class_weight": [np.inf, 1]}, ValueError, r"`class_weight` must be a finite number; got inf at index \(0,\)"),
        (
            {"class_weight": [[1, 2], [3, 4]]},
            ValueError,
            r"`class_weight` must be .* shape \(C,\).*; got shape \(2, 2\)",
        ),
        ({"class_weight": 3.0}, ValueError, r"`class_weight` must be a mapping or have shape \(C,\).*; got shape \(\)"),
        ({"class_weight": []}, ValueError, r"`class_weight` must be .*; got shape \(0,\)"),
        ({"class_weight": ["a", "b"]}, TypeError, "`class_weight` must be real numbers; got dtype <U1"),
        ({"class_weight": {0: -np.inf}}, ValueError, "`class_weight` must map each class to .*; got -inf"),
        ({"class_weight": {"cat": 1.0}}, TypeError, "`class_weight` must have int keys; got 'cat'"),
        ({"class_weight": {0: None}}, TypeError, "`class_weight` must map each class to .*; got None"),
        ({"missing_class_weight": np.inf}, ValueError, "`missing_class_weight` must be 'error' or .*; got inf"),
    ],
)
def test_a_bad_field_is_refused_in_one_sentence(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SoftmaxCrossEntropy(**fields)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"class_weight": 2.0}, ValueError, r"`class_weight` must be None or a pair \(negative, positive\); got 2.0"),
        ({"class_weight": (1, 2, 3)}, ValueError, "`class_weight` must be None or a pair .*; got"),
        ({"class_weight": {0: 1, 1: 2}}, ValueError, "`class_weight` must be None or a pair .*; got"),
        (
            {"class_weight": (1, [2, np.nan])},
            ValueError,
            r"`class_weight` must be a finite number; got nan at index \(1,\)",
        ),
        ({"weighting": "expected"}, ValueError, "`weighting` must be one of 'term', 'label'; got 'expected'"),
        ({"ignore_label": 0.5}, TypeError, "`ignore_label` must be an int or None; got 0.5"),
        ({"average_outputs": 1}, ValueError, "`average_outputs` must be True or False; got 1"),
    ],
)
def test_a_bad_binary_field_is_refused_in_one_sentence(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SigmoidCrossEntropy(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "Hinge"}, "`loss` must be one of 'SoftmaxCrossEntropy', 'SigmoidCrossEntropy'; got 'Hinge'"),
        ({"version": 2}, "`version` must be 1; got 2"),
        ({"gamma": 2}, r"`description` must hold only fields of SoftmaxCrossEntropy; got \['gamma'\]"),
    ],
)
def test_a_foreign_description_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(SoftmaxCrossEntropy().to_dict() | change)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_any_spec_survives_json(seeds: list[int]) -> None:
    for seed in seeds:
        spec = random_call(seed).spec
        copy = from_dict(json.loads(json.dumps(spec.to_dict())))
        assert (copy, copy.fingerprint()) == (spec, spec.fingerprint())


def test_fingerprints_of_many_specs_are_those_of_another_process() -> None:
    specs = [random_call(seed).spec for seed in range(50)]
    code = """import json, sys
from classweight import from_dict
for x in json.load(sys.stdin):
    print(from_dict(x).fingerprint())"""
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        input=json.dumps([spec.to_dict() for spec in specs]),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert run.stdout.split() == [spec.fingerprint() for spec in specs]
